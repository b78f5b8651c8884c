"""Who answers images rightly, and which images they are."""

import numpy as np
import torch

from models import make_model
from vittle.reductions.backbone import describe_backbone
from vittle.training.judging import Judge, digest, logits


class Turned(torch.nn.Module):
    """A model with the signs of its answers turned."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return -self.model(images)


def test_right_is_what_the_labels_or_the_backbone_say() -> None:
    backbone = describe_backbone(make_model("plain"), "tiny")
    images = np.random.default_rng(0).integers(0, 256, (150, 64, 64, 3), np.uint8)  # more than go through at once
    with torch.no_grad():
        expected = backbone.model((torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5)
    torch.testing.assert_close(logits(backbone.model, images, backbone.preprocessing), expected)
    answers = expected.argmax(1).numpy()
    labels = np.where(np.arange(150) < 100, answers, (answers + 1) % 10)
    labelled = Judge(backbone.model, (images, labels), backbone.preprocessing)
    assert np.array_equal(labelled.right(backbone.model), np.arange(150) < 100)
    judged = labelled.judge(backbone.model, backbone.model)
    assert (judged.correct, judged.asked, judged.share) == (200, 300, 2 / 3)
    loss = torch.nn.functional.cross_entropy(expected, torch.from_numpy(labels))
    assert abs(judged.loss - loss.item()) < 1e-5
    bare = Judge(backbone.model, (images, None), backbone.preprocessing)
    assert bare.right(backbone.model).all()
    assert not bare.right(Turned(backbone.model)).all()


def test_a_digest_says_which_arrays_they_are() -> None:
    one, labels = np.zeros((2, 3), np.uint8), np.arange(2)
    known = digest(one, labels)
    assert digest(one.copy(), labels) == known
    assert len(known) == 12
    others = (digest(one, None), digest(one), digest(one.reshape(3, 2), labels), digest(one, labels[::-1]))
    assert len({known, *others}) == 5
