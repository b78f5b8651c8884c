"""Accuracy is the number that timm would report: pixels within a grey level of its own loader's, and the same answers.

timm's side is its own data set, transform, loader and model, as its `validate` script puts them together; ours is what a search
judges by. The configurations are those of published architectures; the model that answers is a small one.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_dataset, create_loader, resolve_model_data_config
from timm.models import get_pretrained_cfg

from vittle.objectives.quality.accuracy import predict, to_input
from vittle.objectives.quality.images import Read, read_images
from vittle.reductions.backbone import describe_backbone
from vittle.reductions.data import preprocessing_of

CLASSES = ["ant", "Bee", "cat10", "cat9"]

# Every crop mode, interpolation, crop share, mean and size in use among timm's Vision Transformers.
ARCHITECTURES = [
    "deit_tiny_patch16_224.fb_in1k",
    "deit3_small_patch16_224.fb_in1k",
    "deit3_small_patch16_224.fb_in22k_ft_in1k",
    "deit3_small_patch16_384.fb_in1k",
    "flexivit_small.300ep_in1k",
    "test_vit.r160_in1k",
    "vit_base_mci_224.apple_mclip",
    "vit_base_patch14_dinov2.lvd142m",
    "vit_base_patch14_reg1_tipsv2.webli",
    "vit_base_patch16_224_miil.in21k",
    "vit_base_patch16_224.augreg2_in21k_ft_in1k",
    "vit_base_patch16_384.augreg_in1k",
    "vit_base_patch16_clip_224.openai",
    "vit_base_patch16_clip_224.openai_ft_in12k_in1k",
    "vit_base_patch16_clip_384.openai_ft_in12k_in1k",
    "vit_base_patch16_lingbot.robbyant",
    "vit_base_patch16_plus_clip_240.laion400m_e32",
    "vit_base_patch16_rope_reg1_gap_256.sbb_in1k",
    "vit_base_patch16_sapiens2.fb",
    "vit_base_patch16_siglip_256.webli",
    "vit_base_patch16_dinov3.lvd1689m",
    "vit_large_patch14_clip_336.openai_ft_in12k_in1k",
    "vit_medium_patch16_gap_384.sw_in12k_ft_in1k",
]


def model_for(config: Any, size: tuple[int, int] | None = None, **changed: Any) -> Any:
    """A small Vision Transformer with the configuration of an architecture, or with parts of it changed."""
    torch.manual_seed(0)
    height, width = size or config.input_size[1:]
    patch = next(side for side in (32, 28, 16, 14, 10) if height % side == 0 and width % side == 0)
    model = timm.create_model("test_vit", num_classes=len(CLASSES), img_size=(height, width), patch_size=patch, depth=2)
    model.pretrained_cfg = {**config.to_dict(), "input_size": (3, height, width), **changed}
    spread_answers(model.eval())
    return model


@torch.no_grad()
def spread_answers(model: Any) -> None:
    """Have the head ask for what differs between pictures, so that no class is always the answer."""
    height, width = model.patch_embed.img_size
    pictures = np.stack([np.asarray(photograph(seed, width, height)) for seed in range(900, 916)])
    given = to_input(pictures, preprocessing_of(model), torch.device("cpu"))
    features = model.forward_head(model.forward_features(given), pre_logits=True)
    model.head.weight.copy_(torch.randn_like(model.head.weight) / features.std(0))
    model.head.bias.copy_(-(model.head.weight @ features.mean(0)))


def photograph(seed: int, width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    drawn = Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    grain = rng.integers(-20, 21, (height, width, 3))
    return Image.fromarray((np.asarray(drawn) + grain).clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of many shapes and kinds, as a stranger's folder has them."""
    root = tmp_path_factory.mktemp("images")
    shapes = [(640, 480), (480, 640), (224, 224), (256, 256), (90, 61), (1024, 300), (33, 500), (500, 375)]
    for number, shape in enumerate(shapes):
        for seed, suffix in enumerate(("jpg", "png")):
            at = root / CLASSES[(number + seed) % len(CLASSES)]
            at.mkdir(exist_ok=True)
            photograph(10 * number + seed, *shape).save(at / f"{number}.{suffix}")
    photograph(1, 200, 120).convert("L").save(root / "ant" / "grey.png")
    photograph(2, 200, 120).convert("RGBA").save(root / "ant" / "clear.png")
    photograph(3, 200, 120).convert("P").save(root / "Bee" / "palette.png")
    photograph(4, 200, 120).convert("1").save(root / "Bee" / "bits.png")
    photograph(5, 200, 120).convert("CMYK").save(root / "cat9" / "print.jpg")
    exif = Image.Exif()
    exif[274] = 6
    photograph(6, 200, 120).save(root / "cat9" / "turned.jpg", exif=exif)
    return root


class Timm:
    """What timm's own loader and model make of a folder, by the names of its images."""

    def __init__(self, root: Path, model: Any) -> None:
        dataset = create_dataset("", root=str(root))
        config = resolve_model_data_config(model)
        loader = create_loader(
            dataset,
            input_size=config["input_size"],
            batch_size=4,
            use_prefetcher=False,
            interpolation=config["interpolation"],
            mean=config["mean"],
            std=config["std"],
            crop_pct=config["crop_pct"],
            crop_mode=config["crop_mode"],
            num_workers=0,
        )
        with torch.inference_mode():
            batches = [(images, labels, model(images).argmax(-1)) for images, labels in loader]
        given, labels, answers = (torch.cat(parts) for parts in zip(*batches, strict=True))
        mean, std = (torch.tensor(config[name]).view(3, 1, 1) for name in ("mean", "std"))
        pixels = ((given * std + mean) * 255).permute(0, 2, 3, 1).numpy()
        names = dataset.filenames()
        self.pixels = dict(zip(names, pixels, strict=True))
        self.labels = dict(zip(names, labels.tolist(), strict=True))
        self.answers = dict(zip(names, answers.tolist(), strict=True))


def compare(root: Path, model: Any, classes: int = len(CLASSES)) -> Read:
    """Hold what a search judges by against timm, image by image, and return it."""
    backbone = describe_backbone(model, "small")
    read = read_images(str(root), backbone.preprocessing, classes)
    theirs = Timm(root, model)
    assert read.images.labels is not None
    ours = predict(model, read.images.pixels, backbone.preprocessing, torch.device("cpu")).tolist()
    assert set(read.names) == set(theirs.labels)
    assert len(set(ours)) > 1
    rows = zip(read.names, read.images.pixels, read.images.labels.tolist(), ours, strict=True)
    for name, pixels, label, answer in rows:
        assert np.abs(pixels - theirs.pixels[name]).max() <= 1.01, name
        assert (label, answer) == (theirs.labels[name], theirs.answers[name]), name
    return read


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_pixels_labels_and_answers_are_timms(folder: Path, architecture: str) -> None:
    config = get_pretrained_cfg(architecture)
    height, width = config.input_size[1:]
    large = {} if height <= 256 else {"size": (224, 224 * width // height)}  # smaller, for speed
    assert len(compare(folder, model_for(config, **large)).names) == 22


def test_the_architectures_have_all_that_differs() -> None:
    configs = [get_pretrained_cfg(name) for name in ARCHITECTURES]
    assert {config.crop_mode for config in configs} == {"center", "squash"}
    assert {config.interpolation for config in configs} == {"bicubic", "bilinear"}
    assert {config.crop_pct for config in configs} == {0.875, 0.9, 0.95, 1.0}
    assert len({config.mean for config in configs}) == 4
    assert any(config.input_size[1] != config.input_size[2] for config in configs)


@pytest.mark.parametrize("size", [(64, 64), (64, 48)])
@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_every_crop_mode_is_timms(folder: Path, mode: str, size: tuple[int, int]) -> None:
    config = get_pretrained_cfg("deit_tiny_patch16_224.fb_in1k")
    compare(folder, model_for(config, size, crop_mode=mode))


def test_what_is_drawn_at_random_for_training_is_bilinear(folder: Path) -> None:
    config = get_pretrained_cfg("deit_tiny_patch16_224.fb_in1k")
    drawn, bilinear = (model_for(config, (32, 32), interpolation=name) for name in ("random", "bilinear"))
    ours = read_images(str(folder), describe_backbone(drawn, "small").preprocessing, len(CLASSES))
    assert ours.images.pixels.tolist() == compare(folder, bilinear).images.pixels.tolist()


def test_numbered_folders_have_the_labels_that_timm_gives_them(tmp_path: Path) -> None:
    for label in range(12):
        (tmp_path / str(label)).mkdir()
        for number in range(2):
            photograph(10 * label + number, 60, 50).save(tmp_path / str(label) / f"{number}.png")
    model = model_for(get_pretrained_cfg("test_vit.r160_in1k"), (32, 32))
    read = compare(tmp_path, model, 12)
    assert sorted(read.images.labels.tolist()) == sorted(2 * list(range(12)))


def test_16_bits_are_the_one_exception(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        photograph(1, 40, 40).save(tmp_path / name / "0.png")
    deep = np.tile(np.linspace(0, 65535, 40).astype(np.uint16), (40, 1))
    Image.fromarray(deep).save(tmp_path / "b" / "deep.png")
    model = model_for(get_pretrained_cfg("test_vit.r160_in1k"), (32, 32))
    read = read_images(str(tmp_path), describe_backbone(model, "small").preprocessing, 2)
    ours, theirs = read.images.pixels[read.names.index("b/deep.png")], Timm(tmp_path, model).pixels["b/deep.png"]
    assert theirs[:, 2:].min() > 250  # clipped to white
    assert np.abs(ours[16, :, 0] - np.linspace(5, 250, 32)).max() < 5
