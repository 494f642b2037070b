"""Events of what people write to one another: pull requests, issues, reviews, comments, discussions, wiki pages, plans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from producers.github.event import Event
from producers.github.reading import Payload


def _of_pull_request(payload: Payload) -> str:
    merged = payload.at("pull_request.merged") or payload.at("pull_request.merged_at")
    return "merged" if payload.action == "closed" and merged else payload.action


def _of_review(payload: Payload) -> str:
    return payload.text("review.state").lower() if payload.action == "submitted" else payload.action


def _of_wiki(payload: Payload) -> str:
    return payload.text("pages.0.action") if len(payload.items("pages")) == 1 else "changed"


_COMMON: Final = {
    "assigned": "assigned {assignee.login} to",
    "unassigned": "took {assignee.login} off",
    "labeled": "put the label {label.name} on",
    "unlabeled": "took the label {label.name} off",
    "milestoned": "put {it} into the milestone {milestone.title|pull_request.milestone.title}",
    "demilestoned": "took {it} out of the milestone {milestone.title}",
    "typed": "gave {it} the type {type.name}",
    "untyped": "took the type {type.name} off",
}
_PULL_REQUEST: Final = {
    **_COMMON,
    "synchronize": "pushed to",
    "review_requested": "asked {requested_reviewer.login|requested_team.name} to review",
    "review_request_removed": "no longer asks {requested_reviewer.login|requested_team.name} to review",
    "ready_for_review": "marked {it} as ready for review",
    "converted_to_draft": "turned {it} into a draft",
    "auto_merge_enabled": "let {it} merge by itself",
    "auto_merge_disabled": "keeps {it} from merging by itself",
    "enqueued": "put {it} into the merge queue",
    "dequeued": "took {it} out of the merge queue",
}
_ISSUE: Final = {**_COMMON, "transferred": "moved {it} to {changes.new_repository.full_name}"}
_COMMENT: Final = {"created": "commented on", "edited": "edited a comment on", "deleted": "deleted a comment on"}
_PULL_LABELS: Final = {
    "author": "{pull_request.user.login}",
    "branch": "{pull_request.base.ref}",
    "head": "{pull_request.head.ref}",
}
_PULL_IT: Final = "pull request {repo}#{pull_request.number}"
_PULL_KEY: Final = "{repo}#{pull_request.number}"
_PULL_WAY: Final = "{pull_request.head.label} → {pull_request.base.ref}"
_ISSUE_LABELS: Final = {"author": "{issue.user.login}", "milestone": "{issue.milestone.title}"}
_DISCUSSION_LABELS: Final = {"author": "{discussion.user.login}", "category": "{discussion.category.name}"}

EVENTS: Final[Mapping[str, Event]] = {
    "pull_request": Event(
        _PULL_IT,
        about="pull_request",
        name="{pull_request.title}",
        key=_PULL_KEY,
        text=("{pull_request.body}", _PULL_WAY),
        verbs={**_PULL_REQUEST, "open": "{it} of {pull_request.user.login} is open since {pull_request.created_at:10}"},
        word=_of_pull_request,
        state="{pull_request.state}",
        labels=_PULL_LABELS,
    ),
    "pull_request_review": Event(
        _PULL_IT,
        about="review",
        name="{pull_request.title}",
        key=_PULL_KEY,
        text=("{review.body}", _PULL_WAY),
        verbs={
            "approved": "approved",
            "changes_requested": "asked for changes in",
            "commented": "reviewed",
            "dismissed": "dismissed the review of {review.user.login} on",
            "edited": "edited a review of",
        },
        word=_of_review,
        state="{pull_request.state}",
        labels={**_PULL_LABELS, "review": "{review.state}"},
    ),
    "pull_request_review_comment": Event(
        _PULL_IT,
        about="comment",
        name="{pull_request.title}",
        key=_PULL_KEY,
        text=("{comment.body}", "{comment.path}"),
        verbs={
            "created": "commented on {comment.path} in",
            "edited": "edited a comment on {comment.path} in",
            "deleted": "deleted a comment on {comment.path} in",
        },
        state="{pull_request.state}",
        labels=_PULL_LABELS,
    ),
    "pull_request_review_thread": Event(
        _PULL_IT,
        about="thread.comments.0",
        name="{pull_request.title}",
        key=_PULL_KEY,
        text=("{thread.comments.0.body}", "{thread.comments.0.path}"),
        verbs={"resolved": "resolved a thread in", "unresolved": "reopened a thread in"},
        state="{pull_request.state}",
        labels=_PULL_LABELS,
    ),
    "issues": Event(
        "issue {repo}#{issue.number}",
        about="issue",
        name="{issue.title}",
        key="{repo}#{issue.number}",
        text=("{issue.body}",),
        verbs={**_ISSUE, "open": "{it} of {issue.user.login} is open since {issue.created_at:10}"},
        state="{issue.state}",
        ends=frozenset({"deleted", "transferred"}),
        labels={**_ISSUE_LABELS, "reason": "{issue.state_reason}"},
    ),
    "issue_comment": Event(
        "{kind_of_issue} {repo}#{issue.number}",
        about="comment",
        name="{issue.title}",
        key="{repo}#{issue.number}",
        text=("{comment.body}",),
        verbs=_COMMENT,
        state="{issue.state}",
        labels=_ISSUE_LABELS,
    ),
    "sub_issues": Event(
        "issue {repo}#{parent_issue.number}",
        about="parent_issue",
        name="{parent_issue.title}",
        key="{repo}#{parent_issue.number}",
        text=("Part: #{sub_issue.number} {sub_issue.title}",),
        verbs={
            "sub_issue_added": "added a part to",
            "sub_issue_removed": "removed a part of",
            "parent_issue_added": "added a part to",
            "parent_issue_removed": "removed a part of",
        },
        state="{parent_issue.state}",
    ),
    "issue_dependencies": Event(
        "issue {repo}#{blocked_issue.number}",
        about="blocked_issue",
        name="{blocked_issue.title}",
        key="{repo}#{blocked_issue.number}",
        text=("Blocked by: #{blocking_issue.number} {blocking_issue.title}",),
        verbs={
            "blocked_by_added": "said what blocks",
            "blocked_by_removed": "took a block off",
            "blocking_added": "said what blocks",
            "blocking_removed": "took a block off",
        },
        state="{blocked_issue.state}",
    ),
    "commit_comment": Event(
        "commit {comment.commit_id:7} in {repo}",
        about="comment",
        name="{comment.body:line}",
        key="{repo}@{comment.commit_id}",
        text=("{comment.body}", "{comment.path}"),
        verbs=_COMMENT,
    ),
    "discussion": Event(
        "discussion {repo}#{discussion.number}",
        about="discussion",
        name="{discussion.title}",
        key="{repo}#{discussion.number}",
        text=("{discussion.body}",),
        verbs={
            **_ISSUE,
            "answered": "marked an answer in",
            "unanswered": "took the mark off the answer in",
            "category_changed": "moved {it} to the category {discussion.category.name}",
        },
        state="{discussion.state}",
        ends=frozenset({"deleted", "transferred"}),
        labels=_DISCUSSION_LABELS,
    ),
    "discussion_comment": Event(
        "discussion {repo}#{discussion.number}",
        about="comment",
        name="{discussion.title}",
        key="{repo}#{discussion.number}",
        text=("{comment.body}",),
        verbs=_COMMENT,
        state="{discussion.state}",
        labels=_DISCUSSION_LABELS,
    ),
    "gollum": Event(
        "{pages} in the wiki of {repo}",
        key="{repo}/wiki",
        text=("{pages.0.summary}", "Wiki: {pages}"),
        word=_of_wiki,
        url="{pages.0.html_url}",
    ),
    "label": Event(
        "the label {label.name} in {repo}",
        about="label",
        name="{label.description}",
        key="{repo}/labels/{label.name}",
        text=("{label.description}", "Changed: {changed}"),
        verbs={"edited": "edited"},
        url="{repository.html_url}/labels",
    ),
    "milestone": Event(
        "the milestone {milestone.title} of {repo}",
        about="milestone",
        key="{repo}/milestone/{milestone.number}",
        text=("{milestone.description}", "Due: {milestone.due_on:10}", "Open issues: {milestone.open_issues}"),
        state="{milestone.state}",
        ends=frozenset({"deleted"}),
        labels={"milestone": "{milestone.title}"},
    ),
    "project": Event(
        "the project {project.name} of {where}",
        about="project",
        key="{where}/projects/{project.number}",
        text=("{project.body}", "Changed: {changed}"),
        state="{project.state}",
        ends=frozenset({"deleted"}),
    ),
    "project_column": Event(
        "the column {project_column.name} of a project of {where}",
        key="{where}/projects/columns/{project_column.id}",
        text=("Changed: {changed}", "Column {project_column.name}"),
        url="{place_url}",
    ),
    "project_card": Event(
        "a card of a project of {where}",
        name="{project_card.note:line}",
        key="{where}/projects/cards/{project_card.id}",
        text=("{project_card.note}", "{project_card.content_url}"),
        url="{place_url}",
        verbs={"converted": "turned {it} into an issue"},
    ),
    "projects_v2": Event(
        "the project {projects_v2.title} of {where}",
        key="{where}/projects/{projects_v2.number}",
        text=("{projects_v2.short_description}", "Changed: {changed}"),
    ),
    "projects_v2_item": Event(
        "an item ({projects_v2_item.content_type}) of a project of {where}",
        key="{where}/projects/items/{projects_v2_item.id}",
        text=("Changed: {changed}", "Item {projects_v2_item.content_node_id}"),
        verbs={"converted": "turned {it} into an issue", "reordered": "moved"},
    ),
    "projects_v2_status_update": Event(
        "the state of a project of {where}",
        name="{projects_v2_status_update.status}",
        key="{where}/projects/{projects_v2_status_update.project_node_id}",
        text=("{projects_v2_status_update.body}",),
    ),
    "notification": Event(
        "{subject_kind} {subject_ref}",
        about="notification",
        name="{notification.subject.title}",
        key="{subject_key}",
        text=("{notification.subject.title}", "Why: {notification.reason}"),
        verbs={
            "approval_requested": "{it} waits for your approval",
            "assign": "{it} is assigned to you",
            "author": "{it}, which is yours, changed",
            "ci_activity": "{it} ended",
            "comment": "{it}, on which you commented, changed",
            "invitation": "{it}: you are invited",
            "manual": "{it}, which you follow, changed",
            "member_feature_requested": "{it}: a feature is asked for",
            "mention": "{it}: you are mentioned",
            "review_requested": "{it} waits for your review",
            "security_alert": "{it}",
            "state_change": "{it}, which you opened or closed, changed",
            "subscribed": "{it}, which you watch, changed",
            "team_mention": "{it}: a team of yours is mentioned",
        },
        url="{subject_url}",
        labels={"reason": "{notification.reason}", "subject": "{notification.subject.type}"},
        severities={"security_alert": "warning"},
    ),
}
