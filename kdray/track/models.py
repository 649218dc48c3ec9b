"""Checkpoints as MLflow's logged models, so that its page of models compares them, and a score names what it is of.

A model is found again by its run and its tag `kdray.student`. It has no files: the weights stay in the store.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kdray.track.runs import WantedModel

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

STUDENT_TAG = "kdray.student"
log = logging.getLogger(__name__)


class LoggedModels:
    """The logged models of an experiment; of a server before MLflow 3 there are none, and none are made."""

    def __init__(self, client: MlflowClient, experiment: str) -> None:
        from mlflow.exceptions import MlflowException

        self._client, self._experiment = client, experiment
        self._ids: dict[str, dict[str, str]] = {}  # by run and identity
        self._known_to_server = True
        try:
            for model in _all_models(client, experiment):
                if model.source_run_id and STUDENT_TAG in model.tags:
                    self._ids.setdefault(model.source_run_id, {})[model.tags[STUDENT_TAG]] = model.model_id
        except MlflowException as error:
            self._known_to_server = False
            log.warning("MLflow keeps no logged models, the scores are with the runs alone: %s", error)

    def id_of(self, run: str, wanted: WantedModel | None) -> str | None:
        """The id of a run's model, which is made if need be."""
        if wanted is None or not self._known_to_server:
            return None
        known = self._ids.setdefault(run, {})
        if wanted.identity not in known:
            tags = {STUDENT_TAG: wanted.identity}
            made = self._client.create_logged_model(self._experiment, wanted.name, run, tags, dict(wanted.params))
            self._client.finalize_logged_model(made.model_id, "READY")
            known[wanted.identity] = made.model_id
        return known[wanted.identity]

    def delete_of(self, run: str) -> None:
        """Put a run's models into the trash, where the run goes."""
        for model in self._ids.pop(run, {}).values():
            self._client.delete_logged_model(model)


def _all_models(client: MlflowClient, experiment: str) -> Iterator[LoggedModel]:
    token = None
    while True:
        page = client.search_logged_models([experiment], page_token=token)
        yield from page
        token = page.token
        if not token:
            return
