"""Events of who may do what, and of repositories, organisations, apps and webhooks themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from producers.github.event import Event
from producers.github.reading import Payload


def _of_star(payload: Payload) -> str:
    return {"created": "starred", "deleted": "unstarred"}.get(payload.action, payload.action)


EVENTS: Final[Mapping[str, Event]] = {
    "star": Event(
        "{repo}", key="{repo}", text=("Stars: {repository.stargazers_count}",), word=_of_star, url="{repository.html_url}"
    ),
    "watch": Event(
        "{repo}",
        key="{repo}",
        text=("Stars: {repository.stargazers_count}",),
        verbs={"started": "started to watch"},
        url="{repository.html_url}",
    ),
    "fork": Event(
        "{repo}",
        about="forkee",
        key="{repo}",
        text=("Forks: {repository.forks_count}", "{forkee.html_url}"),
        verbs={"forked": "forked {it} to {forkee.full_name}"},
        word=lambda _: "forked",
    ),
    "sponsorship": Event(
        "the sponsorship of {sponsorship.sponsorable.login}",
        name="{sponsorship.tier.name}",
        key="sponsorship/{sponsorship.sponsorable.login}/{sponsorship.sponsor.login}",
        text=("Sponsor: {sponsorship.sponsor.login}", "{sponsorship.tier.description}"),
        verbs={
            "created": "began {it}",
            "cancelled": "ended {it}",
            "pending_cancellation": "will end {it}",
            "pending_tier_change": "will change the tier of {it}",
            "tier_changed": "changed the tier of {it}",
        },
        url="https://github.com/sponsors/{sponsorship.sponsorable.login}",
    ),
    "repository": Event(
        "the repository {repo}",
        key="{repo}",
        text=("{repository.description}", "Changed: {changed}"),
        verbs={
            "publicized": "made {it} public",
            "privatized": "made {it} private",
            "renamed": "gave {it} its new name, instead of {changes.repository.name.from}",
            "transferred": "moved {it} to another owner",
        },
        severities={"publicized": "warning", "deleted": "warning", "transferred": "warning"},
        url="{repository.html_url}",
    ),
    "public": Event(
        "the repository {repo}",
        key="{repo}",
        text=("{repository.description}",),
        verbs={"public": "made {it} public"},
        word=lambda _: "public",
        severities={"public": "warning"},
        url="{repository.html_url}",
    ),
    "repository_ruleset": Event(
        "the ruleset {repository_ruleset.name} of {where}",
        key="{where}/rulesets/{repository_ruleset.name}",
        text=("Enforcement: {repository_ruleset.enforcement}", "Changed: {changed}"),
        severities={"edited": "warning", "deleted": "warning"},
        url="{repository_ruleset._links.html.href|place_url}",
    ),
    "branch_protection_rule": Event(
        "the protection of the branch {rule.name} in {repo}",
        key="{repo}@{rule.name}/protection",
        text=("Changed: {changed}", "Branch {rule.name}"),
        severities={"edited": "warning", "deleted": "warning"},
        url="{repository.html_url}/settings/branches",
        labels={"branch": "{rule.name}"},
    ),
    "branch_protection_configuration": Event(
        "all branch protection in {repo}",
        key="{repo}/protection",
        severities={"disabled": "warning"},
        url="{repository.html_url}/settings/branches",
    ),
    "deploy_key": Event(
        "the deploy key {key.title} of {repo}",
        key="{repo}/keys/{key.id}",
        text=("May write: {key_writes}", "Key {key.title}"),
        severities={"created": "warning"},
        url="{repository.html_url}/settings/keys",
    ),
    "member": Event(
        "{member.login}",
        key="{repo}/members/{member.login}",
        text=("Changed: {changed}", "Member {member.login}"),
        verbs={
            "added": "added {it} to {repo}",
            "removed": "took the access to {repo} from {it}",
            "edited": "changed {it}'s access to {repo}",
        },
        url="{repository.html_url}/settings/access",
        labels={"member": "{member.login}"},
    ),
    "membership": Event(
        "{member.login}",
        key="{where}/teams/{team.slug|team.name}",
        text=("Team {team.name}", "{team.description}"),
        verbs={
            "added": "added {it} to the team {team.name} of {where}",
            "removed": "took {it} out of the team {team.name} of {where}",
        },
        url="{team.html_url}",
        labels={"member": "{member.login}", "team": "{team.slug}"},
    ),
    "organization": Event(
        "the organization {where}",
        key="{where}",
        text=("{membership.role}", "{organization.description}", "Changed: {changed}"),
        verbs={
            "member_added": "added {membership.user.login} to {it}",
            "member_removed": "took {membership.user.login} out of {it}",
            "member_invited": "invited {user.login|invitation.login|invitation.email} to {it}",
            "renamed": "gave {it} its new name, instead of {changes.login.from}",
        },
        severities={"deleted": "warning"},
        url="{place_url}",
        labels={"member": "{membership.user.login|user.login}"},
    ),
    "org_block": Event(
        "{blocked_user.login}",
        key="{where}/blocked/{blocked_user.login}",
        verbs={"blocked": "blocked {it} from {where}", "unblocked": "let {it} into {where} again"},
        url="{blocked_user.html_url}",
    ),
    "team": Event(
        "the team {team.name} of {organization.login|where}",
        key="{organization.login|where}/teams/{team.slug|team.name}",
        text=("{team.description}", "Changed: {changed}"),
        verbs={
            "added_to_repository": "gave {it} access to {repo}",
            "removed_from_repository": "took the access to {repo} from {it}",
        },
        url="{team.html_url}",
        labels={"team": "{team.slug}"},
    ),
    "team_add": Event(
        "the team {team.name}",
        key="{organization.login|where}/teams/{team.slug|team.name}",
        text=("{team.description}",),
        verbs={"added": "gave {it} access to {repo}"},
        word=lambda _: "added",
        url="{team.html_url}",
        labels={"team": "{team.slug}"},
    ),
    "installation": Event(
        "the app {installation.app_slug} for {installation.account.login}",
        about="installation",
        key="installation/{installation.id}",
        text=("Repositories: {installed_repositories|installation.repository_selection}",),
        verbs={
            "created": "installed",
            "deleted": "uninstalled",
            "suspend": "suspended",
            "unsuspend": "ended the suspension of",
            "new_permissions_accepted": "accepted new permissions of",
        },
        severities={"deleted": "warning", "suspend": "warning"},
    ),
    "installation_repositories": Event(
        "the app {installation.app_slug} for {installation.account.login}",
        about="installation",
        key="installation/{installation.id}",
        text=("Added: {added_repositories}", "Removed: {removed_repositories}"),
        verbs={"added": "added {added_repositories} to {it}", "removed": "removed {removed_repositories} from {it}"},
    ),
    "installation_target": Event(
        "the account {account.login|account.slug}, where an app is installed",
        key="installation/{installation.id}",
        text=("Before: {changes.login.from|changes.slug.from}",),
        verbs={"renamed": "{it}, was renamed"},
    ),
    "github_app_authorization": Event("the authorization of the app for {sender.login}", key="authorization/{sender.login}"),
    "personal_access_token_request": Event(
        "a token of {personal_access_token_request.owner.login} for {where}",
        key="{where}/token-requests/{personal_access_token_request.id}",
        text=("{personal_access_token_request.token_name}",),
        verbs={"created": "asks for", "approved": "approved", "denied": "denied", "cancelled": "no longer asks for"},
        state="{action}",
        ends=frozenset({"approved", "denied", "cancelled"}),
    ),
    "custom_property": Event(
        "the property {definition.property_name} of {where}", key="{where}/properties/{definition.property_name}"
    ),
    "custom_property_values": Event(
        "the properties of {repo}", key="{repo}", text=("Changed: {properties}",), url="{repository.html_url}"
    ),
    "marketplace_purchase": Event(
        "the plan {marketplace_purchase.plan.name} for {marketplace_purchase.account.login}",
        key="marketplace/{marketplace_purchase.account.login}",
        text=("{marketplace_purchase.plan.description}", "From {effective_date:10}"),
        verbs={
            "purchased": "bought",
            "cancelled": "cancelled",
            "changed": "changed to",
            "pending_change": "will change to",
            "pending_change_cancelled": "will not change to",
        },
        severities={"cancelled": "warning"},
    ),
    "enterprise": Event(
        "the enterprise {enterprise.name}",
        key="{where}",
        verbs={
            "anonymous_access_enabled": "let anybody read public repositories of {it}",
            "anonymous_access_disabled": "no longer lets anybody read public repositories of {it}",
        },
        severities={"anonymous_access_enabled": "warning"},
    ),
    "user": Event(
        "the user {user.login} of {where}",
        key="{where}/users/{user.login}",
        url="{user.html_url}",
        labels={"member": "{user.login}"},
    ),
    "cache_sync": Event(
        "{repo}@{short_ref} in the cache {cache_location}",
        key="{repo}@{short_ref}/cache",
        text=("From {before:7} to {after:7}",),
        word=lambda _: "brought up to date",
        labels={"branch": "{short_ref}"},
    ),
    "content_reference": Event(
        "the link {content_reference.reference} in {repo}",
        key="{repo}/references/{content_reference.id}",
        text=("{content_reference.reference}",),
    ),
    "meta": Event(
        "this webhook of {where}",
        key="{where}/hooks/{hook_id}",
        text=("Nothing more comes from it: {hook.config.url}",),
        severities={"deleted": "warning"},
        url="{place_url}",
    ),
    "ping": Event(
        "the webhook of {where}",
        key="{where}/hooks/{hook_id}",
        name="{zen}",
        text=("Events: {hook_events}", "{zen}"),
        verbs={"ping": "{it} reaches Siftbell"},
        word=lambda _: "ping",
        url="{place_url}",
    ),
}
