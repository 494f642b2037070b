"""Events of what runs and ships: pushes, checks, workflows, deployments, releases, packages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from producers.github.event import Event, by_result
from producers.github.reading import Payload

_MOST_COMMITS: Final = 10
_RESULTS: Final = {
    "success": "{it} succeeded",
    "failure": "{it} failed",
    "error": "{it} failed",
    "errored": "{it} failed",
    "cancelled": "{it} was cancelled",
    "timed_out": "{it} ran out of time",
    "startup_failure": "{it} could not start",
    "action_required": "{it} waits for somebody to act",
    "neutral": "{it} ended neutral",
    "skipped": "{it} was skipped",
    "stale": "{it} became stale",
    "inactive": "{it} is inactive",
    "requested": "{it} was asked for",
    "created": "{it} was created",
    "queued": "{it} is queued",
    "pending": "{it} is pending",
    "waiting": "{it} is waiting",
    "in_progress": "{it} is running",
    "rerequested": "asked for {it} again",
    "requested_action": "asked for the action {requested_action.identifier} of {it}",
    "built": "{it} was built",
    "building": "{it} is being built",
    "complete": "{it} is complete",
}
_PLURAL: Final = {
    word: text.replace("{it} was", "{it} were").replace("{it} is", "{it} are").replace("{it} waits", "{it} wait")
    for word, text in _RESULTS.items()
}


def _of_push(payload: Payload) -> str:
    if payload.at("deleted") is True:
        return "deleted"
    if payload.at("forced") is True:
        return "forced"
    return "created" if payload.at("created") is True and not payload.items("commits") else "pushed"


def _commits(payload: Payload) -> str:
    found = payload.items("commits")
    lines = []
    for commit in found[:_MOST_COMMITS]:
        told = Payload("commit", commit)
        lines.append(told.fill("{id:7} {message:line} ({author.username|author.name})"))
    return "\n".join([*lines, *([f"… and {len(found) - _MOST_COMMITS} more"] if len(found) > _MOST_COMMITS else [])])


def _steps(payload: Payload) -> str:
    failed = [str(step.get("name")) for step in payload.items("workflow_job.steps") if step.get("conclusion") == "failure"]
    return f"Failed: {', '.join(failed[:10])}" if failed else ""


EVENTS: Final[Mapping[str, Event]] = {
    "push": Event(
        "{repo}@{short_ref}",
        about="head_commit",
        name="{head_commit.message:line}",
        key="{repo}@{short_ref}",
        text=(_commits, "{compare}"),
        verbs={
            "pushed": "pushed {count_of_commits} to",
            "forced": "pushed {count_of_commits} by force to",
            "created": "created the {kind_of_ref}",
            "deleted": "deleted the {kind_of_ref}",
        },
        word=_of_push,
        severities={"forced": "warning"},
        url="{compare}",
        labels={"branch": "{short_ref}"},
    ),
    "create": Event(
        "the {kind_of_ref} {short_ref} in {repo}",
        key="{repo}@{short_ref}",
        word=lambda _: "created",
        url="{repository.html_url}/tree/{short_ref}",
        labels={"branch": "{short_ref}"},
    ),
    "delete": Event(
        "the {kind_of_ref} {short_ref} in {repo}",
        key="{repo}@{short_ref}",
        word=lambda _: "deleted",
        url="{repository.html_url}",
        labels={"branch": "{short_ref}"},
    ),
    "check_run": Event(
        "check {check_run.name} on {repo}@{check_run.check_suite.head_branch|check_run.head_sha:sha}",
        about="check_run",
        name="{check_run.output.title}",
        key="{repo}@{check_run.check_suite.head_branch|check_run.head_sha}/{check_run.name}",
        text=("{check_run.output.summary}", "Commit {check_run.head_sha:7}, by {check_run.app.name}"),
        verbs=_RESULTS,
        word=by_result("check_run", "rerequested", "requested_action"),
        labels={
            "check": "{check_run.name}",
            "branch": "{check_run.check_suite.head_branch}",
            "conclusion": "{check_run.conclusion}",
        },
        state="{check_run.conclusion}",
        severity="{check_run.conclusion}",
    ),
    "check_suite": Event(
        "the checks of {check_suite.app.name} on {repo}@{check_suite.head_branch|check_suite.head_sha:sha}",
        about="check_suite",
        name="{check_suite.head_commit.message:line}",
        key="{repo}@{check_suite.head_branch|check_suite.head_sha}/{check_suite.app.name}",
        text=("Commit {check_suite.head_sha:7} {check_suite.head_commit.message:line}",),
        verbs=_PLURAL,
        word=by_result("check_suite", "rerequested"),
        url="{repository.html_url}/commit/{check_suite.head_sha}/checks",
        labels={
            "check": "{check_suite.app.name}",
            "branch": "{check_suite.head_branch}",
            "conclusion": "{check_suite.conclusion}",
        },
        state="{check_suite.conclusion}",
        severity="{check_suite.conclusion}",
    ),
    "workflow_run": Event(
        "workflow {workflow_run.name|workflow.name} on {repo}@{run_branch|workflow_run.head_sha:sha}",
        about="workflow_run",
        name="{workflow_run.display_title|workflow_run.head_commit.message:line}",
        key="{repo}@{run_branch|workflow_run.head_sha}/{workflow.name|workflow_run.name}",
        text=(
            "Run {workflow_run.run_number} for {workflow_run.event}, commit {workflow_run.head_sha:7}",
            "{workflow_run.head_commit.message}",
        ),
        verbs=_RESULTS,
        word=by_result("workflow_run"),
        labels={
            "workflow": "{workflow.name|workflow_run.name}",
            "branch": "{run_branch}",
            "conclusion": "{workflow_run.conclusion}",
        },
        state="{workflow_run.conclusion}",
        severity="{workflow_run.conclusion}",
    ),
    "workflow_job": Event(
        "job {workflow_job.name} on {repo}@{workflow_job.head_branch|workflow_job.head_sha:sha}",
        about="workflow_job",
        name="{workflow_job.workflow_name}",
        key="{repo}@{workflow_job.head_branch|workflow_job.head_sha}/{workflow_job.workflow_name}/{workflow_job.name}",
        text=(_steps, "Runner: {workflow_job.runner_name}", "Commit {workflow_job.head_sha:7}"),
        verbs=_RESULTS,
        word=by_result("workflow_job"),
        labels={
            "workflow": "{workflow_job.workflow_name}",
            "job": "{workflow_job.name}",
            "branch": "{workflow_job.head_branch}",
            "conclusion": "{workflow_job.conclusion}",
        },
        state="{workflow_job.conclusion}",
        severity="{workflow_job.conclusion}",
    ),
    "workflow_dispatch": Event(
        "workflow {workflow} on {repo}@{short_ref}",
        key="{repo}@{short_ref}/{workflow}",
        word=lambda _: "started",
        url="{repository.html_url}/actions",
        labels={"branch": "{short_ref}"},
    ),
    "repository_dispatch": Event(
        "{action} in {repo}",
        key="{repo}@{branch}",
        word=lambda _: "sent the event",
        labels={"branch": "{branch}"},
    ),
    "status": Event(
        "status {context} on {repo}@{branches.0.name|sha:sha}",
        about="commit",
        name="{description}",
        key="{repo}@{branches.0.name|sha}/{context}",
        text=("{description}", "Commit {sha:7} {commit.commit.message:line}"),
        verbs=_RESULTS,
        word=lambda payload: payload.text("state"),
        url="{target_url|commit.html_url}",
        labels={"check": "{context}", "branch": "{branches.0.name}", "conclusion": "{state}"},
        state="{state}",
        severity="{state}",
    ),
    "deployment": Event(
        "a deployment of {repo}@{deployment.ref} to {deployment.environment}",
        about="deployment",
        key="{repo}/deployments/{deployment.environment}",
        text=("{deployment.description}", "{workflow_run.display_title}", "Commit {deployment.sha:7}"),
        verbs={"created": "started"},
        url="{workflow_run.html_url|repository.html_url}",
        labels={"environment": "{deployment.environment}", "branch": "{deployment.ref}"},
    ),
    "deployment_status": Event(
        "the deployment of {repo}@{deployment.ref} to {deployment.environment}",
        about="deployment_status",
        key="{repo}/deployments/{deployment.environment}",
        text=("{deployment_status.description}", "Commit {deployment.sha:7}"),
        verbs=_RESULTS,
        word=lambda payload: payload.text("deployment_status.state"),
        url="{deployment_status.environment_url|deployment_status.log_url|deployment_status.target_url|repository.html_url}",
        labels={
            "environment": "{deployment.environment}",
            "branch": "{deployment.ref}",
            "conclusion": "{deployment_status.state}",
        },
        state="{deployment_status.state}",
        severity="{deployment_status.state}",
    ),
    "deployment_review": Event(
        "a deployment of {repo}@{workflow_run.head_branch} to {workflow_job_run.environment|environment}",
        about="workflow_run",
        name="{workflow_run.display_title}",
        key="{repo}/deployments/{workflow_job_run.environment|environment}",
        text=("{comment}", "Run {workflow_run.run_number} of {workflow_run.name}"),
        verbs={"requested": "asks for the approval of", "approved": "approved", "rejected": "rejected"},
        severity="{action}",
        labels={"environment": "{workflow_job_run.environment|environment}", "branch": "{workflow_run.head_branch}"},
    ),
    "deployment_protection_rule": Event(
        "a deployment of {repo}@{deployment.ref} to {environment}",
        about="deployment",
        key="{repo}/deployments/{environment}",
        text=("For {event}",),
        verbs={"requested": "asks to let pass"},
        url="{repository.html_url}",
        labels={"environment": "{environment}", "branch": "{deployment.ref}"},
    ),
    "page_build": Event(
        "the site of {repo}",
        about="build",
        key="{repo}/pages",
        text=("{build.error.message}", "Commit {build.commit:7}"),
        verbs=_RESULTS,
        word=lambda payload: payload.text("build.status"),
        url="{repository.html_url}",
        state="{build.status}",
        severity="{build.status}",
    ),
    "merge_group": Event(
        "the merge queue of {repo}",
        name="{merge_group.head_commit.message:line}",
        key="{repo}/merge-queue",
        text=("{merge_group.head_commit.message}", "Reason: {reason}"),
        verbs={"checks_requested": "{it} asks for checks", "destroyed": "{it} let a group go"},
        url="{repository.html_url}",
    ),
    "release": Event(
        "the release {release.tag_name} of {repo}",
        about="release",
        name="{release.name}",
        key="{repo}/releases/{release.tag_name}",
        text=("{release.body}", "Changed: {changed}", "Tag {release.tag_name} on {release.target_commitish}"),
        verbs={"prereleased": "published {it} as a pre-release", "released": "brought out"},
        labels={"tag": "{release.tag_name}"},
    ),
    "package": Event(
        "the package {package.name} {package.package_version.version} of {where}",
        about="package",
        name="{package.package_version.summary}",
        key="{where}/packages/{package.name}",
        text=("{package.package_version.installation_command}", "Type: {package.package_type}"),
        labels={"package": "{package.name}"},
    ),
    "registry_package": Event(
        "the package {registry_package.name} {registry_package.package_version.version} of {where}",
        about="registry_package",
        name="{registry_package.package_version.summary}",
        key="{where}/packages/{registry_package.name}",
        text=("{registry_package.package_version.installation_command}", "Type: {registry_package.package_type}"),
        labels={"package": "{registry_package.name}"},
    ),
    "repository_import": Event(
        "the import of {repo}",
        key="{repo}/import",
        verbs=_RESULTS,
        word=lambda payload: payload.text("status"),
        url="{repository.html_url}",
        state="{status}",
        severity="{status}",
    ),
}
