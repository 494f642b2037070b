"""An SMTP server: the connections to it, and the conversation that hands over a mail."""

from __future__ import annotations

import re
import smtplib
import ssl
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from email.headerregistry import Address
from typing import Final

import structlog

from consumers.email.addresses import Envelope, Failure
from consumers.email.mail import Mail
from consumers.email.options import EmailConfig
from consumers.email.text import told
from pipeline import ConfigError, PermanentError, TemporaryError

log = structlog.get_logger()

_PORTS: Final = {"starttls": 587, "tls": 465, "none": 25}
PATIENCE: Final = 50.0
"""Seconds for a whole delivery: the engine gives up after 60, and a mail that was given up may yet have arrived."""
_PROBE: Final = 10.0
"""Seconds for a look whether the server takes us."""
_IDLE: Final = 60.0
"""Seconds that a connection is kept for the next mail."""
_MAILS: Final = 100
"""How many mails a connection carries: servers end it at some number."""


class Server:
    """An SMTP server, and the connections to it that wait for the next mail. Its methods block."""

    def __init__(self, config: EmailConfig) -> None:
        self._config = config
        self._idle: list[tuple[smtplib.SMTP, float, int]] = []
        self._context = ssl.create_default_context()
        if config.ca_file is not None:
            try:
                self._context.load_verify_locations(config.ca_file)
            except OSError as error:  # ssl's errors are of this class
                raise ConfigError(f"ca_file holds no certificates that can be read ({type(error).__name__})") from None

    def send(self, mail: Mail, envelope: Envelope, receivers: Mapping[str, Address], until: float) -> dict[str, Failure]:
        """Hand over a mail; gives an error for each who does not get it, and raises one that holds for all."""
        with self._judging(), self._connection(until) as smtp:
            return self._hand_over(smtp, mail, envelope, receivers, until)

    def probe(self) -> str:
        """Connect, with TLS and login, and ask nothing more; raises as `send` does."""
        with self._judging(), self._connection(time.monotonic() + _PROBE) as smtp:
            _expect(smtp.noop())
        login = f" takes the login of {self._config.user}" if self._config.password is not None else " answers"
        return f"{self._place}{login}"

    @contextmanager
    def _judging(self) -> Iterator[None]:
        """Raise what the server answers, or that it does not, as what it means for the mail."""
        try:
            yield
        except smtplib.SMTPResponseException as error:
            raise self._judged(error.smtp_code, error.smtp_error) from None
        except ssl.SSLCertVerificationError as error:
            raise TemporaryError(f"{self._place}: the certificate does not hold: {error.verify_message}") from None
        except TimeoutError:
            raise TemporaryError(f"{self._place}: no answer in time") from None
        except smtplib.SMTPServerDisconnected as error:
            text = "no answer in time" if "timed out" in str(error) else "the connection broke off"
            raise TemporaryError(f"{self._place}: {text}") from None
        except OSError as error:
            raise TemporaryError(f"{self._place}: no connection: {error.strerror or error}") from None

    def close(self) -> None:
        """Take leave on all connections that nobody uses."""
        while self._idle:
            _leave(self._idle.pop()[0])

    def _hand_over(
        self, smtp: smtplib.SMTP, mail: Mail, envelope: Envelope, receivers: Mapping[str, Address], until: float
    ) -> dict[str, Failure]:
        utf8, sender = smtp.has_extn("smtputf8"), mail.sender.addr_spec
        failed: dict[str, Failure] = {}
        if not utf8:
            text = f"{self._place}: takes no addresses but in ASCII (no SMTPUTF8)"
            failed = {one: PermanentError(text) for one in receivers if not (one + sender).isascii()}
        answers = mail.reply_to.addr_spec if mail.reply_to else ""
        named = any(not address.isascii() for address in (sender, answers, *envelope.everybody()))
        size = smtp.esmtp_features.get("size", "")
        written = mail.fitting(int(size) if size.isdigit() else 0, lambda mail: mail.to_bytes(envelope, utf8=utf8 and named))
        options = [f"SIZE={len(written)}"] if smtp.has_extn("size") else []
        options += ["SMTPUTF8", *(["BODY=8BITMIME"] if smtp.has_extn("8bitmime") else [])] if utf8 and named else []
        if len(failed) == len(receivers):
            return failed
        _wait_until(smtp, until)
        _expect(smtp.mail(sender, options))
        accepted = []
        for one in (one for one in receivers if one not in failed):
            _wait_until(smtp, until)
            code, answer = smtp.rcpt(one)
            if code == 421:
                raise smtplib.SMTPResponseException(code, answer)
            if 200 <= code < 300:
                accepted.append(one)
            else:
                failed[one] = self._judged(code, answer, of_receiver=True)
        if not accepted:
            smtp.rset()
            return failed
        _wait_until(smtp, until)
        try:
            code, answer = smtp.data(written)
        except smtplib.SMTPDataError as refused:
            return failed | dict.fromkeys(accepted, self._judged(refused.smtp_code, refused.smtp_error))
        if code != 250:
            return failed | dict.fromkeys(accepted, self._judged(code, answer))
        log.info("a mail is on its way", id=mail.id, receivers=len(accepted), answer=told(_as_text(answer)))
        return failed

    @contextmanager
    def _connection(self, until: float) -> Iterator[smtplib.SMTP]:
        smtp, mails = self._waiting() or (self._connect(until), 0)
        try:
            yield smtp
        except BaseException:
            smtp.close()
            raise
        if mails + 1 < _MAILS:
            self._idle.append((smtp, time.monotonic(), mails + 1))
        else:
            _leave(smtp)

    def _waiting(self) -> tuple[smtplib.SMTP, int] | None:
        """Give a connection that was used before and still answers."""
        while self._idle:
            smtp, since, mails = self._idle.pop()
            with suppress(OSError):  # smtplib's errors are of this class
                _wait_until(smtp, time.monotonic() + 5)
                if time.monotonic() - since < _IDLE and smtp.rset()[0] == 250:
                    return smtp, mails
            _leave(smtp)
        return None

    def _connect(self, until: float) -> smtplib.SMTP:
        config, timeout = self._config, max(1.0, min(10.0, until - time.monotonic()))
        port = config.port or _PORTS[config.security]
        if config.security == "tls":
            smtp: smtplib.SMTP = smtplib.SMTP_SSL(
                config.host, port, local_hostname=config.helo, timeout=timeout, context=self._context
            )
        else:
            smtp = smtplib.SMTP(config.host, port, local_hostname=config.helo, timeout=timeout)
        try:
            smtp.ehlo_or_helo_if_needed()
            if config.security == "starttls":
                self._encrypt(smtp)
            if config.password is not None:
                self._log_in(smtp, config.password.get_secret_value())
        except BaseException:
            smtp.close()
            raise
        return smtp

    def _encrypt(self, smtp: smtplib.SMTP) -> None:
        if not smtp.has_extn("starttls"):
            raise TemporaryError(f"{self._place}: offers no STARTTLS; write `security: tls`, or `none` where it is at hand")
        _expect(smtp.starttls(context=self._context))
        smtp.ehlo_or_helo_if_needed()

    def _log_in(self, smtp: smtplib.SMTP, password: str) -> None:
        """Log in by PLAIN or LOGIN, in UTF-8: `smtplib` knows no password but in ASCII."""
        user, ways = self._config.user, smtp.esmtp_features.get("auth", "").upper().split()
        if "PLAIN" in ways:
            code, answer = smtp.docmd("AUTH", f"PLAIN {_plain(user, password)}")
        elif "LOGIN" in ways:
            code, answer = smtp.docmd("AUTH", f"LOGIN {_base64(user)}")
            code, answer = smtp.docmd(_base64(password)) if code == 334 else (code, answer)
        else:
            raise PermanentError(f"{self._place}: offers no login by PLAIN or LOGIN; see `security`, or leave `user` out")
        if code != 235:
            raise smtplib.SMTPAuthenticationError(code, _as_text(answer))

    def _judged(self, code: int, answer: bytes | str, *, of_receiver: bool = False) -> Failure:
        """Say by the code and the enhanced status whether it may pass."""
        text = told(self._hidden(_as_text(answer)))
        found = re.match(r"[245]\.\d{1,3}\.\d{1,3}\b", text)
        status = found[0] if found else ""
        too_many = of_receiver and code == 552 and (not status or status.endswith(".5.3"))
        may_pass = not 500 <= code < 600 or status.startswith("4.") or status == "5.4.5" or too_many
        advice = "; see `user` and `password`" if code in (530, 534, 535) else ""
        return (TemporaryError if may_pass else PermanentError)(f"{self._place}: answered {code} {text}{advice}".strip())

    def _hidden(self, text: str) -> str:
        if self._config.password is not None:
            password, user = self._config.password.get_secret_value(), self._config.user
            for secret in (_plain(user, password), _base64(password), password):
                text = text.replace(secret, "***")
        return text

    @property
    def _place(self) -> str:
        return f"SMTP {self._config.host}:{self._config.port or _PORTS[self._config.security]}"


def _expect(answer: tuple[int, bytes]) -> None:
    if not 200 <= answer[0] < 300:
        raise smtplib.SMTPResponseException(*answer)


def _wait_until(smtp: smtplib.SMTP, until: float) -> None:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    if smtp.sock is not None:
        smtp.sock.settimeout(left)


def _leave(smtp: smtplib.SMTP) -> None:
    with suppress(OSError):  # smtplib's errors are of this class
        if smtp.sock is not None:
            smtp.sock.settimeout(2.0)
        smtp.quit()
    smtp.close()


def _as_text(answer: bytes | str) -> str:
    return answer.decode(errors="replace") if isinstance(answer, bytes) else answer


def _plain(user: str, password: str) -> str:
    return _base64(f"\0{user}\0{password}")


def _base64(text: str) -> str:
    return b64encode(text.encode()).decode()
