"""What mattered in a study, told from its trials and kept, so that whoever shows it needs no Optuna."""

from vittle.objectives.parameter_importance import Importance
from vittle.search.importance import importance
from vittle.spaces.space import Space
from vittle.storage.records import Study
from vittle.storage.store import Store


def explain(study: Study, store: Store) -> Importance | None:
    """What each searched parameter is worth by the trials so far; None where they are too few to tell."""
    space = Space(study.backbone.shape, study.settings.reductions, adapters=study.backbone.adapters)
    found = importance(space, store.trials(study.name), study.settings.seed)
    if found is not None:
        store.save_importance(study.name, found)
    return found
