"""The service under requests that nobody would think of: no error of its own, and every answer as it is described."""

import itertools

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from recorded import coordinate, make_study, run
from services import BEARER, FakeJobs, make_service
from vittle.dashboards.app import create_app

EXAMPLES = 12  # for each operation
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    unsupported_method,
]
TOLD = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def make_real(case) -> None:
    """Name a study, a model and images that there are."""
    if "name" in (case.path_parameters or {}):
        case.path_parameters["name"] = "study"
    if case.operation.label == "POST /api/studies" and isinstance(case.body, dict):
        case.body |= {"name": "new", "model": "digits", "data": "digits", "latency_budget": "60%"}


@pytest.mark.parametrize(("headers", "public"), [(BEARER, False), (BEARER, True), ({}, False), ({}, True)])
def test_whatever_is_sent_the_answer_is_one_that_the_description_names(store, headers: dict[str, str], public: bool) -> None:
    run(coordinate(make_study(store, trials=4), store))
    store.set_state("study", "complete")
    service = make_service(store, public=public, often=1_000_000)
    service.hosts = ["testserver"]
    app = create_app(store, service=service)
    schema = schemathesis.openapi.from_asgi("/api/openapi.json", app, headers=dict(BEARER))
    seen: dict[str, set[int]] = {}
    turns = itertools.count(1)
    for found in schema.get_all_operations():
        operation = found.ok()

        @TOLD
        @given(case=operation.as_strategy())
        def ask(case) -> None:
            assert isinstance(service.jobs, FakeJobs)
            service.jobs.end()
            if next(turns) % 2:  # else hardly any request gets as far as a study that there is, or a model
                make_real(case)
            response = case.call(headers=dict(headers))
            seen[case.operation.label].add(response.status_code)
            case.validate_response(response, checks=CHECKS, headers=dict(headers))

        seen[operation.label] = set()
        ask()
    changes = {label for label in seen if label.startswith("POST")}
    assert len(changes) == 6
    assert len(seen) == 13
    allowed = bool(headers)
    for label, codes in seen.items():
        if not allowed and (public or label in changes):
            assert codes == {401}
        else:
            assert codes & {200, 202, 404}
            assert 401 not in codes
