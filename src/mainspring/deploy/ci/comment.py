"""One comment on a pull request, written once and changed in its place, by GitHub's REST API."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from collections.abc import Mapping
from typing import Any

import msgspec

from mainspring.deploy.ci.report import MARK
from mainspring.errors import ServiceError, UsageError

__all__ = ["GitHub", "put_comment"]

_SECONDS = 30.0
_PAGE = 100
_PAGES = 50
_MOST_BYTES = 8 << 20


class GitHub(msgspec.Struct, frozen=True):
    """Where and as whom.

    Attributes:
        api: the address of the API.
        repository: ``owner/name``.
        token: sent to that address and nowhere else.
    """

    api: str
    repository: str
    token: str

    @classmethod
    def of_environment(cls, environ: Mapping[str, str]) -> GitHub:
        """As GitHub's runners say: GITHUB_API_URL, GITHUB_REPOSITORY, GITHUB_TOKEN.

        Raises:
            UsageError: MS-2782, one of them is missing.
        """
        api = environ.get("GITHUB_API_URL", "https://api.github.com")
        repository, token = environ.get("GITHUB_REPOSITORY", ""), environ.get("GITHUB_TOKEN", "")
        if not (repository.count("/") == 1 and token):
            raise UsageError(
                "GitHub is not known here",
                code="MS-2782",
                why="GITHUB_REPOSITORY (owner/name) and GITHUB_TOKEN must be in the environment",
                fix="run this in a workflow with permission pull-requests: write, or set both",
            )
        return cls(api.rstrip("/"), repository, token)

    def call(self, method: str, path: str, body: object = None) -> Any:
        """A request of the API; `path` is below the repository.

        Raises:
            ServiceError: MS-2783, it does not answer, or refuses.
        """
        found = urllib.parse.urlsplit(self.api)
        kind = http.client.HTTPConnection if found.scheme == "http" else http.client.HTTPSConnection
        connection = kind(found.netloc, timeout=_SECONDS)
        headers = {
            "Authorization": f"Bearer {self.token}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
            "User-Agent": "mainspring",
            "Content-Type": "application/json",
        }
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, f"{found.path}/repos/{self.repository}{path}", data, headers)
            answer = connection.getresponse()
            text = answer.read(_MOST_BYTES)
            if answer.status >= 300:
                raise _refused(method, path, f"{answer.status} {answer.reason}")
            return json.loads(text or b"null")
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _refused(method, path, str(error) or type(error).__name__) from error
        finally:
            connection.close()


def _refused(method: str, path: str, why: str) -> ServiceError:
    return ServiceError(
        f"GitHub does not do {method} {path.partition('?')[0]}",
        code="MS-2783",
        why=why,
        fix="check the token's permissions: pull-requests: write",
    )


def put_comment(github: GitHub, text: str, *, number: int | None = None, head: str = "") -> int | None:
    """Write the comment on a pull request, or change the one that is there.

    Args:
        github: where.
        text: with `MARK` in it.
        number: of the pull request.
        head: else ``owner:branch`` that it is from: whoever triggers a workflow cannot choose the number.

    Returns:
        The pull request's number; None when there is no open one from that branch.

    Raises:
        ServiceError: MS-2783, GitHub does not answer, or refuses.
    """
    if number is None:
        query = urllib.parse.urlencode({"head": head, "state": "open", "per_page": 1})
        there = github.call("GET", f"/pulls?{query}")
        if not there:
            return None
        number = int(there[0]["number"])
    for page in range(1, _PAGES + 1):
        comments = github.call("GET", f"/issues/{number}/comments?per_page={_PAGE}&page={page}")
        for one in comments:
            if MARK in (one.get("body") or "") and (one.get("user") or {}).get("type") == "Bot":
                github.call("PATCH", f"/issues/comments/{int(one['id'])}", {"body": text})
                return number
        if len(comments) < _PAGE:
            break
    github.call("POST", f"/issues/{number}/comments", {"body": text})
    return number
