"""Settings of the scorer process, from `SCORER_…` environment variables."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pointsman.runtime.settings import SettingsError, setting

PREFIX: Final = "SCORER"
SHIPPED_NAME: Final = "default"
SHIPPED_ARTIFACT: Final = Path(__file__).parent / "artifacts" / SHIPPED_NAME

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """See `--help`, which prints these."""

    listen: str = setting(
        "127.0.0.1:50051", meaning="Address of the gRPC server. Port 0 takes a free one.", unit="host:port"
    )
    metrics_listen: str = setting(
        "127.0.0.1:9101", meaning="Address of the Prometheus endpoint. Port 0 takes a free one.", unit="host:port"
    )
    artifacts: str = setting(
        "",
        meaning="The artefact directories to serve, each under a name, as NAME=DIR,NAME=DIR. The first of each task "
        "(predict, score answers, rank answers) answers requests that name no scorer. Unset: the shipped artefact, "
        "which predicts, under the name `default`.",
        unit="name=directory,…",
    )
    threads: int = setting(
        0,
        meaning="Threads that work on one run of a model. 0 takes as many as the process may use; set it where a "
        "container's CPU quota is less than that.",
        unit="threads",
        minimum=0,
        maximum=1024,
    )
    max_queue: int = setting(
        1024,
        meaning="Conversations that may wait for one scorer's worker. More are refused with RESOURCE_EXHAUSTED, so "
        "that a backlog cannot grow beyond what callers wait for.",
        unit="conversations",
        minimum=1,
    )
    max_batch: int = setting(
        64,
        meaning="Conversations that are scored together. A batch is what has piled up while the worker was busy; a "
        "larger one raises throughput and the time of the unluckiest.",
        unit="conversations",
        minimum=1,
    )
    batch_wait: float = setting(
        0.0,
        meaning="How long an idle worker waits for more conversations before it starts on a batch that is not full. "
        "0 starts at once; more than 0 only pays off where a larger batch is much cheaper per conversation.",
        unit="seconds",
        minimum=0,
        maximum=1,
    )
    max_conversation_bytes: int = setting(
        1024 * 1024,
        meaning="UTF-8 text of one conversation, over all its turns. More is refused with INVALID_ARGUMENT.",
        unit="bytes",
        minimum=1,
        maximum=16 * 1024 * 1024,
    )
    max_request_batch: int = setting(
        256,
        meaning="Conversations in one BatchScore call. More are refused with INVALID_ARGUMENT. Must not exceed "
        "SCORER_MAX_QUEUE. Also how many very long conversations may wait, which is done apart from the others.",
        unit="conversations",
        minimum=1,
    )
    max_answer_bytes: int = setting(
        1024 * 1024,
        meaning="UTF-8 text of one answer in ScoreAnswer and RankAnswers. More is refused with INVALID_ARGUMENT.",
        unit="bytes",
        minimum=1,
        maximum=2 * 1024 * 1024,
    )
    max_answers: int = setting(
        8,
        meaning="Answers in one RankAnswers call, each two of which are compared in both orders. More are refused with "
        "INVALID_ARGUMENT. The queue of a ranker has room for the comparisons of one full call at least.",
        unit="answers",
        minimum=2,
        maximum=16,
    )
    tls_certificate: str = setting(
        "",
        meaning="PEM file with the gRPC port's certificate chain, its own certificate first. Read again when it "
        "changes. Unset: the port speaks in the clear.",
        unit="path",
    )
    tls_key: str = setting("", meaning="PEM file with the certificate's private key.", unit="path")
    tls_client_ca: str = setting(
        "",
        meaning="PEM file with the authority that signs clients' certificates. If it is set, every client must show "
        "one.",
        unit="path",
    )
    drain: float = setting(
        30.0,
        meaning="How long calls in flight may finish after SIGTERM before they are cancelled.",
        unit="seconds",
        minimum=0,
        maximum=3600,
    )
    mode: str = setting(
        "development",
        meaning="Development offers gRPC server reflection; production does not.",
        unit="mode",
        choices=("development", "production"),
    )
    log_level: str = setting(
        "info", meaning="Least severity that is logged.", unit="level", choices=("debug", "info", "warning", "error")
    )
    log_style: str = setting(
        "auto",
        meaning="JSON lines, text for people, or text on a terminal and JSON elsewhere.",
        unit="style",
        choices=("auto", "json", "text"),
    )

    def __post_init__(self) -> None:
        self.artifact_directories()
        if self.max_request_batch > self.max_queue:
            raise SettingsError(
                f"{PREFIX}_MAX_QUEUE={self.max_queue}: write at least {self.max_request_batch}, which is "
                f"{PREFIX}_MAX_REQUEST_BATCH, or a full BatchScore call could never be admitted"
            )

    def artifact_directories(self) -> dict[str, Path]:
        """The directory of each scorer by its name; the first is the default.

        Raises:
            SettingsError: an entry is not NAME=DIR, or a name appears twice.
        """
        if not self.artifacts:
            return {SHIPPED_NAME: SHIPPED_ARTIFACT}
        directories: dict[str, Path] = {}
        for entry in self.artifacts.split(","):
            name, _, directory = (part.strip() for part in entry.partition("="))
            if not _NAME.fullmatch(name) or not directory:
                raise SettingsError(
                    f"{PREFIX}_ARTIFACTS: {entry!r} is not NAME=DIR; a name is of a-z, 0-9, '_', '.' and '-'"
                )
            if name in directories:
                raise SettingsError(
                    f"{PREFIX}_ARTIFACTS: the name {name!r} appears twice; choose another for one of them"
                )
            directories[name] = Path(directory)
        return directories
