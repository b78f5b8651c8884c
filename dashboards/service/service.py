"""A server with the power to launch: it checks what is asked for, and turns it into `vittle` commands."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Literal, NamedTuple

from fastapi import HTTPException
from pydantic import BaseModel, ConfigDict, Field

from vittle.dashboards.security.sessions import Access
from vittle.dashboards.service.catalog import DIGITS, Catalog, Device
from vittle.dashboards.service.jobs import Action, Job, Jobs, UnreachableJobsError
from vittle.objectives.budget import LatencyBudget
from vittle.objectives.goals import TOLERANCE, inference_goals
from vittle.spaces.errors import VittleError
from vittle.spaces.table import REDUCTIONS, check_adapters, check_reductions
from vittle.storage import claim
from vittle.storage.records import Study, check_name
from vittle.storage.settings import Settings
from vittle.storage.store import Store

LOG_LINES = 40
LARGEST = 2**31 - 1
LONGEST = 366 * 24 * 3600  # seconds


class Request(BaseModel):
    """What a client sends; nothing that is not named here."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Launch(Request):
    """A search, with the options of `vittle launch`; model and data by their names in the catalog."""

    name: str = Field(description="Of the new study: up to 100 letters, digits, spaces and . _ + -", examples=["mine"])
    model: str = Field(description="Name in the catalog.", examples=[DIGITS])
    data: str = Field(description="Name in the catalog.", examples=[DIGITS])
    latency_budget: str | None = Field(
        None,
        description="`4ms` or `p95 4ms` for a batch, a share of the backbone's time such as `60%`, or `1000 images/s`. "
        "Default: 60%, with `max_accuracy_drop` 100%.",
    )
    tolerance: str = Field(
        TOLERANCE, description="The fastest schedule within so many points of the best accuracy is recommended; 0: the best."
    )
    max_accuracy_drop: str | None = Field(
        None, description="In its place: the fastest that loses at most so many points against the backbone, such as `0.5%`."
    )
    batch_size: int = Field(64, ge=1, le=LARGEST)
    device: Device | None = Field(None, description="Default: the first one of the catalog.")
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    reductions: list[str] = Field(["merging"], min_length=1, max_length=len(REDUCTIONS))
    trials: int = Field(40, ge=1, le=LARGEST)
    time_limit: int | None = Field(None, ge=1, le=LONGEST, description="Seconds after which no trial is started.")
    trial_time_limit: int | None = Field(None, ge=1, le=LONGEST, description="Seconds that one trial may take.")
    image_passes: int | None = Field(None, ge=1, le=LARGEST, description="Work, as images through the whole backbone.")
    predict: bool = Field(True, description="Predict latencies and measure the front, or measure every trial.")
    until_flat: bool = Field(True, description="End where the front grows no more.")
    workers: int = Field(1, ge=1, le=LARGEST)
    seed: int = Field(0, ge=0, le=LARGEST)


class Extension(Request):
    """How many schedules to try in addition."""

    trials: int = Field(20, ge=1, le=LARGEST)


class Activity(NamedTuple):
    """Who is at a study, and what can be done with it now."""

    holder: str | None
    job: Job | None
    actions: list[str]


class Service:
    """What all requests of a server share.

    Args:
        store: the studies; jobs write to the same database.
        jobs: where searches run.
        catalog: what may be searched for.
        access: who may ask for it.
        hosts: the names that the server answers to.
    """

    def __init__(self, store: Store, jobs: Jobs, catalog: Catalog, access: Access, hosts: Sequence[str]) -> None:
        self.store, self.jobs, self.catalog, self.access, self.hosts = store, jobs, catalog, access, hosts
        self._one = threading.Lock()  # of two requests at once the second sees the first one's job

    def launch(self, asked: Launch) -> Job:
        """Begin a search."""
        with _refusing(HTTPStatus.UNPROCESSABLE_ENTITY):
            arguments = self._arguments(asked)
        with self._one:
            if asked.name in self.store.names():
                raise HTTPException(HTTPStatus.CONFLICT, f"study {asked.name!r} exists; give another name, or extend it")
            return self._submit(asked.name, "launch", arguments)

    def stop(self, study: Study) -> None:
        """Ask whoever runs a study to stop, or the job that gets ready to."""
        job = self._running(study.name)
        if job is not None:
            self.stop_job(job)
            return
        with _refusing(HTTPStatus.CONFLICT):
            claim.stop(self.store, study.name)

    def stop_job(self, job: Job) -> None:
        """Ask a job to stop: in good order where it runs its study, and at once before that, when there is nothing to keep."""
        if job.state != "running":
            raise HTTPException(HTTPStatus.CONFLICT, f"job {job.id!r} has ended: {job.state}")
        there = job.study in [study.name for study in self.store.studies()]
        if there and claim.holder(self.store, job.study) is not None:
            with _refusing(HTTPStatus.CONFLICT):
                claim.stop(self.store, job.study)
            return
        with self._reached():
            self.jobs.stop(job.id)

    def job(self, name: str) -> Job:
        """The job of that id."""
        found = next((job for job in self.all() if job.id == name), None)
        if found is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, f"no job {name!r}; they are listed at /api/jobs")
        return found

    def resume(self, study: Study) -> Job:
        """Go on with a study."""
        if study.state == "complete":
            raise HTTPException(HTTPStatus.CONFLICT, f"study {study.name!r} is complete; extend it")
        return self._go_on(study, "resume")

    def extend(self, study: Study, trials: int) -> Job:
        """Add trials to a study and run them."""
        most, wanted = self.catalog.limits.trials, study.settings.trials + trials
        if wanted > most:
            reason = f"trials: {wanted} in all are too many; accepted: up to {most}"
            raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, reason)
        return self._go_on(study, "extend", f"--trials={trials}")

    def retime(self, study: Study) -> Job:
        """Time the front of a study again."""
        return self._go_on(study, "retime", f"--device={study.settings.device}")

    def activity(self, study: Study) -> Activity:
        """Who is at a study, and what can be done with it now; `job` is its last one."""
        holder = claim.holder(self.store, study.name)
        with self._reached():
            job = next((job for job in self.jobs.all() if job.study == study.name), None)
        busy = holder is not None or (job is not None and job.state == "running")  # a job that gets ready can be stopped, too
        again = [] if study.state == "complete" else ["resume"]
        known = self.catalog.holds(study.settings)
        actions = ["stop"] if busy else [*again, "extend", "retime"] if known else []
        return Activity(None if holder is None else f"{holder.user}@{holder.host}", job, actions)

    def all(self) -> list[Job]:
        """All jobs, newest first."""
        with self._reached():
            return self.jobs.all()

    def log(self, job: Job) -> list[str]:
        """The last lines of a job's log, without the database's password, should anything have written it there."""
        with self._reached():
            lines = self.jobs.log(job.id, LOG_LINES)
        return [self.store.hidden(line) for line in lines]

    def _arguments(self, asked: Launch) -> list[str]:
        check_name(asked.name)
        budget = LatencyBudget.parse(asked.latency_budget or Settings().latency_budget, asked.batch_size)
        inference_goals(budget, asked.tolerance, asked.max_accuracy_drop)
        model, images, limits = self.catalog.model(asked.model), self.catalog.images(asked.data), self.catalog.limits
        if images.source == DIGITS and model.model != DIGITS:
            raise VittleError(f"model {asked.model!r} needs images of its own; {asked.data!r} are for the model digits")
        for name in ("trials", "workers", "batch_size"):
            given, most = getattr(asked, name), getattr(limits, name)
            if given > most:
                raise VittleError(f"{name}: {given} is too many; accepted: up to {most}")
        device = asked.device or limits.devices[0]
        if device not in limits.devices:
            raise VittleError(f"device {device!r} is not offered here; accepted: {', '.join(limits.devices)}")
        check_reductions(asked.reductions)
        check_adapters({}, asked.reductions)
        options = {
            "study": asked.name,
            "model": model.model,
            "checkpoint": model.checkpoint,
            "image-size": model.image_size and "{}x{}".format(*model.image_size),
            "data": images.source,
            "classes": images.classes,
            "latency-budget": asked.latency_budget and asked.latency_budget.strip(),
            "tolerance": asked.tolerance,
            "max-accuracy-drop": asked.max_accuracy_drop,
            "batch-size": asked.batch_size,
            "device": device,
            "dtype": asked.dtype,
            "reductions": ",".join(asked.reductions),
            "trials": asked.trials,
            "time-limit": asked.time_limit and f"{asked.time_limit}s",
            "trial-time-limit": asked.trial_time_limit and f"{asked.trial_time_limit}s",
            "image-passes": asked.image_passes,
            "workers": asked.workers,
            "seed": asked.seed,
        }
        given_options = [f"--{name}={value}" for name, value in options.items() if value is not None]
        predict, until_flat = ("--predict", "--measure-all"), ("--until-flat", "--all-trials")
        return [*given_options, predict[not asked.predict], until_flat[not asked.until_flat]]

    def _go_on(self, study: Study, action: Action, *options: str) -> Job:
        if not self.catalog.holds(study.settings):
            reason = f"study {study.name!r} is not of this catalog's models, data and devices; go on from a command line"
            raise HTTPException(HTTPStatus.CONFLICT, reason)
        with self._one:
            holder = claim.holder(self.store, study.name)
            if holder is not None:
                reason = f"study {study.name!r} is being run by {holder.user} on {holder.host}; stop it first, or wait"
                raise HTTPException(HTTPStatus.CONFLICT, reason)
            return self._submit(study.name, action, [*options, "--", study.name])

    def _submit(self, study: str, action: Action, arguments: Sequence[str]) -> Job:
        running = [job for job in self.all() if job.state == "running"]
        if study in [job.study for job in running]:
            raise HTTPException(HTTPStatus.CONFLICT, f"a job of study {study!r} is running already; wait for it, or stop it")
        if len(running) >= self.catalog.limits.jobs:
            raise HTTPException(HTTPStatus.CONFLICT, f"{len(running)} jobs are running, as many as may; wait for one to end")
        with self._reached():
            return self.jobs.submit(study, action, arguments)

    def _running(self, study: str) -> Job | None:
        return next((job for job in self.all() if job.study == study and job.state == "running"), None)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except UnreachableJobsError as error:
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from None


@contextmanager
def _refusing(status: HTTPStatus) -> Iterator[None]:
    try:
        yield
    except VittleError as error:
        raise HTTPException(status, str(error)) from None
