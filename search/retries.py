"""How often a trial whose worker has died is begun again, until it counts as what its workers die of."""

ATTEMPTS = 3


def given_up(why: str | None, attempts: int) -> str | None:
    """Why a trial is not begun again; None where it is.

    Args:
        why: what became of its last worker; None where the trial cannot be blamed for it.
        attempts: how often it has been begun, with the one that would be next.
    """
    return None if why is None or attempts <= ATTEMPTS else f"{why}, each of {ATTEMPTS} times"
