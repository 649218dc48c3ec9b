"""Mirrors a grid into MLflow: writes what the store has and MLflow has not yet.

A run is found again by its tag `kdray.point`, never by its name. Logging the same again is the same row: MLflow
tells metrics apart by name, step, timestamp and value, and the timestamp is the run's start plus the step. What
was logged can be neither changed nor deleted, so a run that says something else than the store (a task was
changed, a resumed attempt took slightly different steps) goes to MLflow's trash and is written anew.
"""

from __future__ import annotations

import logging
import math
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from kdray.plan import Plan
from kdray.report.results import collect
from kdray.store import Store, fingerprint, io
from kdray.store.done import SUM
from kdray.track.address import is_lost, is_server, tracking_uri
from kdray.track.connection import TrackingError, analyse, connect, tracking_errors
from kdray.track.models import LoggedModels
from kdray.track.runs import (
    CURVES,
    IN_GRID_TAG,
    LOSS,
    POINT_TAG,
    Entry,
    WantedRun,
    identities,
    summary_run,
    wanted_runs,
)
from kdray.track.view import VIEW_TAG, shared_view

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment, Run

RUN_NAME_TAG = "mlflow.runName"
BATCH = 1000  # metrics in one request, MLflow's limit
REST = (
    10.0  # times as long as the last update took, before the next one: at most a tenth of a core, or of a slow server
)
RETRY = 60.0  # seconds without a try after a failed one
SAME = 1e-9  # relative difference below which a number only lost digits in some database
log = logging.getLogger(__name__)


@dataclass
class _Tracked:
    """A run as MLflow has it; `known` holds the value behind every entry's mark."""

    id: str
    started: int
    status: str
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    known: dict[tuple[str, int], float] = field(default_factory=dict)


class Mirror:
    """Keeps the MLflow view of `plan` up to date. Its methods may be called from several threads.

    Raises (all methods):
        TrackingError: MLflow cannot be written; a later call tries again.
    """

    def __init__(self, plan: Plan, store: Store) -> None:
        self.plan, self.store = plan, store
        self._lock = threading.Lock()
        self._not_before = 0.0  # monotonic seconds
        self._client: MlflowClient | None = None
        self._experiment = ""
        self._tracked: dict[str, _Tracked] = {}
        self._models: LoggedModels | None = None

    def update(self) -> None:
        """Log what is new. Cheap enough for every other second: does nothing where the last one was long or failed."""
        with self._lock:
            started = time.monotonic()
            if started < self._not_before:
                return
            try:
                wanted = self._wanted()
            except FileNotFoundError:  # an attempt was sealed, and its leftovers removed, while we read
                return
            self._write(wanted)
            self._not_before = time.monotonic() + REST * (time.monotonic() - started)

    def finish(self) -> None:
        """Log what is left, each run's files, and the run that has the report; the store notes that it is done."""
        with self._lock:
            shown = self._to_show()
            wanted = self._wanted(summed_up=True)
            client = self._write(wanted)
            if client:
                with tracking_errors(tracking_uri(self.plan.grid, self.store)):
                    for run in wanted:
                        for name, content in run.files.items():
                            _log_file(client, self._tracked[run.identity].id, name, content)
                io.put_json(self._note, shown)

    @property
    def is_finished(self) -> bool:
        """Whether `finish` has come to its end for this grid, with the artifacts that are there now.

        MLflow is not asked, which takes seconds to load: the store knows.
        """
        return io.read_json(self._note) == self._to_show() and not is_lost(self.plan.grid, self.store)

    @property
    def _note(self) -> Path:
        return self.store.root / "tracked" / f"{self.plan.grid.name}.json"

    def _to_show(self) -> dict[str, str]:
        """What the view follows from, in short."""
        artifacts = (self.store.get(step.key) for step in self.plan.steps() if step.id)
        sealed = {artifact.key.id: artifact.done.get(SUM) for artifact in artifacts if artifact}
        return {"grid": fingerprint(self.plan.grid.model_dump(mode="json")), "artifacts": fingerprint(sealed)}

    def _wanted(self, summed_up: bool = False) -> list[WantedRun]:
        results = collect(self.plan, self.store)
        wanted = list(wanted_runs(results, self.store))
        if summed_up and wanted:
            wanted += summary_run(results, self.store)
        return wanted

    def _write(self, wanted: list[WantedRun]) -> MlflowClient | None:
        """Make MLflow hold `wanted`; None if there is nothing to hold."""
        if not wanted:
            return None
        try:
            with tracking_errors(tracking_uri(self.plan.grid, self.store)):
                client = self._client or self._connect()
                for run in wanted:
                    self._write_run(client, run)
                self._mark_left_out(client)
                analyse(tracking_uri(self.plan.grid, self.store))
        except TrackingError:
            self._client = None  # somebody may have deleted what we remember
            self._not_before = time.monotonic() + RETRY
            raise
        self._client = client
        return client

    def _connect(self) -> MlflowClient:
        client = connect(tracking_uri(self.plan.grid, self.store))
        self._experiment = self._open_experiment(client).experiment_id
        self._models = LoggedModels(client, self._experiment)
        self._tracked = self._find_runs(client)
        return client

    def _open_experiment(self, client: MlflowClient) -> Experiment:
        """The grid's experiment, made or taken out of the trash, with its tags."""
        from mlflow.exceptions import MlflowException

        grid = self.plan.grid
        experiment = client.get_experiment_by_name(grid.name)
        if experiment is None:
            server = is_server(tracking_uri(grid, self.store))
            try:
                client.create_experiment(grid.name, None if server else (self.store.root / "mlartifacts").as_uri())
            except MlflowException:  # another driver may have made it just now
                if client.get_experiment_by_name(grid.name) is None:
                    raise
        elif experiment.lifecycle_stage == "deleted":
            client.restore_experiment(experiment.experiment_id)
        experiment = client.get_experiment_by_name(grid.name)
        assert experiment is not None
        tags = {"kdray.grid": grid.name, "kdray.question": grid.question, "mlflow.note.content": grid.question}
        for key, value in tags.items():
            if experiment.tags.get(key) != value:
                client.set_experiment_tag(experiment.experiment_id, key, value)
        view = shared_view(self.plan)
        if experiment.tags.get(VIEW_TAG) != view:
            try:
                client.set_experiment_tag(experiment.experiment_id, VIEW_TAG, view)
            except MlflowException as error:  # the numbers do not depend on how they are shown
                log.warning("MLflow refused the shared view: %s", error)
        return experiment

    def _find_runs(self, client: MlflowClient) -> dict[str, _Tracked]:
        """The experiment's runs by identity."""
        return self._one_of_each(client, _all_runs(client, self._experiment))

    def _one_of_each(self, client: MlflowClient, found: Iterable[Run]) -> dict[str, _Tracked]:
        """Runs by identity. Of two that drivers made at the same time the older one stays."""
        runs = [run for run in found if POINT_TAG in run.data.tags]
        grid, tracked = identities(self.plan), {}
        for run in sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id)):
            identity = run.data.tags[POINT_TAG]
            if identity in tracked:
                self._delete(client, run.info.run_id)
            else:
                known = dict(_read_known(client, run)) if grid is None or identity in grid else {}
                tracked[identity] = _Tracked(
                    run.info.run_id, run.info.start_time, run.info.status, run.data.params, run.data.tags, known
                )
        return tracked

    def _write_run(self, client: MlflowClient, wanted: WantedRun) -> None:
        from mlflow.entities import Metric, Param, RunTag

        tracked = self._tracked.get(wanted.identity)
        tags = {RUN_NAME_TAG: wanted.name, **wanted.tags}
        if tracked and (_differ(tracked.params, wanted.params) or _contradicts(tracked, wanted.entries)):
            self._delete(client, tracked.id)
            tags = {**tags, **tracked.tags, **wanted.tags}  # a person may have renamed it, or added notes
            tracked = None
        if tracked is None:
            tracked = self._tracked[wanted.identity] = self._make_run(client, wanted, tags)
        if params := {key: value for key, value in wanted.params.items() if key not in tracked.params}:
            client.log_batch(tracked.id, params=[Param(key, value) for key, value in params.items()])
            tracked.params |= params
        new = [entry for entry in wanted.entries if entry.mark not in tracked.known]
        for batch in _batches(new):
            metrics = [
                Metric(name, value, tracked.started + entry.step, entry.step, self._model(tracked.id, entry))
                for entry in batch
                for name, value in entry.values.items()
            ]
            client.log_batch(tracked.id, metrics=metrics)
            tracked.known |= {entry.mark: entry.values[entry.mark[0]] for entry in batch}
        if changed := {key: value for key, value in wanted.tags.items() if tracked.tags.get(key) != value}:
            client.log_batch(tracked.id, tags=[RunTag(key, value) for key, value in changed.items()])
            tracked.tags |= changed
        if tracked.status != wanted.status:
            if wanted.status == "RUNNING":
                client.update_run(tracked.id, wanted.status)
            else:
                client.set_terminated(tracked.id, wanted.status, wanted.ended)
            tracked.status = wanted.status

    def _make_run(self, client: MlflowClient, wanted: WantedRun, tags: dict[str, str]) -> _Tracked:
        """Make a run, or take the one that another driver has made meanwhile."""
        made = client.create_run(self._experiment, wanted.started, tags)
        runs = client.search_runs([self._experiment], f"tags.`{POINT_TAG}` = '{wanted.identity}'")
        return self._one_of_each(client, [*runs] or [made])[wanted.identity]

    def _model(self, run: str, entry: Entry) -> str | None:
        return self._models.id_of(run, entry.model) if self._models else None

    def _delete(self, client: MlflowClient, run: str) -> None:
        client.delete_run(run)
        if self._models:
            self._models.delete_of(run)

    def _mark_left_out(self, client: MlflowClient) -> None:
        """Tag the runs of points that the grid no longer has; they stay."""
        grid = identities(self.plan)
        if grid is None:
            return
        for identity, tracked in self._tracked.items():
            if identity not in grid and tracked.tags.get(IN_GRID_TAG) != "false":
                client.set_tag(tracked.id, IN_GRID_TAG, "false")
                tracked.tags[IN_GRID_TAG] = "false"


def _log_file(client: MlflowClient, run: str, name: str, content: Any) -> None:
    """Put a file among a run's artifacts, in the place of one of the same name."""
    if not isinstance(content, Path):
        client.log_dict(run, dict(content), name)
        return
    with tempfile.TemporaryDirectory() as folder:  # an artifact has the name of the file that it is made of
        copy = Path(folder) / PurePosixPath(name).name
        shutil.copyfile(content, copy)
        client.log_artifact(run, str(copy), str(PurePosixPath(name).parent))


def _all_runs(client: MlflowClient, experiment: str) -> Iterator[Run]:
    token = None
    while True:
        page = client.search_runs([experiment], page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _read_known(client: MlflowClient, run: Run) -> Iterator[tuple[tuple[str, int], float]]:
    """What a run says at the marks of its entries. Of an entry of a curve only the loss is read."""
    for name, value in run.data.metrics.items():
        if "/" not in name:
            yield (name, 0), value
        elif name == LOSS or name not in CURVES.values():
            for metric in client.get_metric_history(run.info.run_id, name):
                yield (name, metric.step), metric.value


def _contradicts(tracked: _Tracked, entries: list[Entry]) -> bool:
    """Whether a run says something else than it should; saying less is no contradiction."""
    for entry in entries:
        mark = entry.mark
        value, held = entry.values[mark[0]], tracked.known.get(mark)
        if held is not None and held != value and not math.isclose(held, value, rel_tol=SAME):
            return True
    return False


def _differ(held: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return any(held.get(key, value) != value for key, value in wanted.items())


def _batches(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Entries in order, as many at a time as one request takes; an entry is never torn apart."""
    batch: list[Entry] = []
    metrics = 0
    for entry in entries:
        if metrics + len(entry.values) > BATCH:
            yield batch
            batch, metrics = [], 0
        batch.append(entry)
        metrics += len(entry.values)
    if batch:
        yield batch
