"""Files for a repository on the Hub: a diff before they are sent, and refusals as one sentence."""

import difflib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import CommitOperationAdd, HfApi, get_session, hf_hub_url, hf_raise_for_status
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.errors import HTTPError as TransportError  # type: ignore[attr-defined]
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from invmm_eval.errors import InvMMError

Kind = Literal["model", "dataset", "space"]
Content = bytes | Path
"""The content of a file, or the path of a file with this content."""

TIMEOUT = 60.0
"""Timeout of each request in seconds; the client's own default is none."""

_CHANGED = "it was changed in the meantime; run the command again"
_REMEDIES = {
    401: "log in with `hf auth login`, or set HF_TOKEN to a valid token",
    403: "use a token with write access to it",
    404: "check the name, and that your token has access to it",
    409: _CHANGED,
    412: _CHANGED,
    429: "wait some minutes, then run the command again",
}
_TEXTS = (".md", ".yaml", ".json")


class UnreachableError(InvMMError):
    """There is no network, or no Hub in it."""


@dataclass(frozen=True)
class Repository:
    """The present state of a repository on the Hub.

    Attributes:
        name: ``org/name``.
        kind: Model, data set or Space.
        head: Its latest commit; None if the repository does not exist.
        files: The paths of its files.
        private: Whether only its owners have access.
    """

    name: str
    kind: Kind
    head: str | None
    files: frozenset[str] = frozenset()
    private: bool = True

    @classmethod
    def find(cls, name: str, kind: Kind, *, missing_ok: bool = False) -> "Repository":
        """Look the repository up.

        Args:
            name: ``org/name``.
            kind: Model, data set or Space.
            missing_ok: Whether it may be missing, to be created by :meth:`send`.

        Raises:
            UnreachableError: The Hub cannot be reached.
            InvMMError: The Hub refuses, or has no such repository.
        """
        with _one_sentence(name, kind):
            try:
                found: Any = HfApi().repo_info(name, repo_type=kind, timeout=TIMEOUT)
            except RepositoryNotFoundError as error:
                if missing_ok and error.response.status_code == 404:
                    return cls(name, kind, None)
                raise
        files = frozenset(file.rfilename for file in found.siblings or ())
        return cls(name, kind, found.sha, files, bool(found.private))

    def read(self, path: str) -> bytes | None:
        """The content of a file; None if there is no such file.

        Raises:
            InvMMError: The Hub refuses or cannot be reached.
        """
        if path not in self.files:
            return None
        with _one_sentence(self.name, self.kind):
            address = hf_hub_url(self.name, path, repo_type=self.kind, revision=self.head)
            answer = get_session().get(address, headers=build_hf_headers())
            hf_raise_for_status(answer)
            return answer.content

    def diff(self, files: Mapping[str, Content]) -> str:
        """What sending the files would change: a unified diff of each text file, one line for each other file.

        Files given by a path may be large and are not compared.

        Raises:
            InvMMError: The Hub refuses or cannot be reached.
        """
        changes: list[str] = []
        for path, content in files.items():
            if path.endswith(_TEXTS):
                before, after = (_lines(text) for text in (self.read(path), content))
                old = f"a/{path}" if path in self.files else "/dev/null"
                changes += difflib.unified_diff(before, after, old, f"b/{path}")
            elif isinstance(content, Path) or self.read(path) != content:
                size = len(content) if isinstance(content, bytes) else content.stat().st_size
                changes.append(f"{'replaces' if path in self.files else 'adds'} {path} ({size:,} bytes)\n")
        return "".join(change if change.endswith("\n") else f"{change}\n" for change in changes)

    def send(
        self, files: Mapping[str, Content], message: str, *, pull_request: bool = False, private: bool = True
    ) -> str | None:
        """Commit files on top of :attr:`head`, in a repository that is created if it does not exist.

        Args:
            files: Content by path.
            message: The first line of the commit and the title of the pull request.
            pull_request: Open a pull request instead of committing.
            private: Whether a new repository is private.

        Returns:
            The address of the pull request or of the commit; None if nothing changed.

        Raises:
            InvMMError: The Hub refuses, the repository was changed in the meantime, or the Hub cannot be reached.
        """
        operations = [CommitOperationAdd(path, content) for path, content in files.items()]
        with _one_sentence(self.name, self.kind):
            if self.head is None:
                sdk = "gradio" if self.kind == "space" else None
                HfApi().create_repo(self.name, repo_type=self.kind, private=private, space_sdk=sdk)
            commit = HfApi().create_commit(
                self.name,
                operations,
                commit_message=message,
                repo_type=self.kind,
                create_pr=pull_request,
                parent_commit=self.head,
            )
        if pull_request:
            return commit.pr_url
        return None if commit.oid == self.head else str(commit.commit_url)


def _lines(content: Content | None) -> list[str]:
    data = content.read_bytes() if isinstance(content, Path) else content or b""
    return data.decode(errors="replace").splitlines(keepends=True)


@contextmanager
def _one_sentence(name: str, kind: Kind) -> Iterator[None]:
    """Turn errors of the client into one sentence."""
    client = get_session()
    before, client.timeout = client.timeout, TIMEOUT
    try:
        yield
    except HfHubHTTPError as error:
        status = error.response.status_code
        message = " ".join((error.server_message or error.response.reason_phrase).split())
        remedy = _REMEDIES.get(status, "run the command again later" if status >= 500 else "follow its message")
        raise InvMMError(f"The Hub refused the {kind} {name} ({status}, {message!r}): {remedy}.") from error
    except HFValidationError as error:
        raise InvMMError(f"{name!r} is not a name on the Hub; names have the form org/name.") from error
    except json.JSONDecodeError as error:
        raise InvMMError(
            f"The answer for the {kind} {name} is not from the Hub; check the network and HF_ENDPOINT."
        ) from error
    except ValueError as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise InvMMError(f"The Hub does not accept the {kind} {name}: {reason}; fix this, then try again.") from error
    except (TransportError, ConnectionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnreachableError(
            f"The Hub could not be reached ({reason}); check the network, and run the command again."
        ) from error
    finally:
        client.timeout = before
