import pytest

from trainer.checkpoints import aliases, places
from trainer.checkpoints.errors import UnknownCheckpoint
from trainer.config import BackboneSettings


def test_sixty_five_networks_two_distilled_and_the_first_version_are_listed():
    names = aliases.names()
    assert len(names) == len(set(names)) == 65 + 2 + 9
    for name in names:
        assert aliases.find(name).url == f"{aliases.TF2_BUCKET}/{name}/saved_model"


@pytest.mark.parametrize(
    ("text", "url", "backbone"),
    [
        ("simclrv2/finetuned_100pct/r50_1x_sk0",
         "gs://simclr-checkpoints-tf2/simclrv2/finetuned_100pct/r50_1x_sk0/saved_model",
         {"depth": 50}),
        ("simclrv2/pretrained/r152_3x_sk1/hub/",
         "gs://simclr-checkpoints/simclrv2/pretrained/r152_3x_sk1/hub",
         {"depth": 152, "width": 3, "sk_ratio": 0.0625}),
        ("gs://simclr-checkpoints/simclrv2/supervised/r101_2x_sk0/hub/",
         "gs://simclr-checkpoints/simclrv2/supervised/r101_2x_sk0/hub",
         {"depth": 101, "width": 2}),
        ("simclrv2/distill_10pct/r152_3x_sk1/r50_1x_sk1",
         "gs://simclr-checkpoints-tf2/simclrv2/distill_10pct/r152_3x_sk1/r50_1x_sk1/saved_model",
         {"depth": 50, "sk_ratio": 0.0625}),
        ("simclrv1/finetune_10pct/4x",
         "gs://simclr-checkpoints-tf2/simclrv1/finetune_10pct/4x/saved_model",
         {"depth": 50, "width": 4}),
    ],
)  # fmt: skip
def test_an_alias_tells_address_and_network(text, url, backbone):
    found = aliases.find(text)
    assert (found.url, found.backbone) == (url, BackboneSettings(**backbone))
    assert aliases.of_address(found.url) == found


def test_figures_stand_beside_the_alias():
    assert aliases.find("simclrv2/finetuned_1pct/r152_3x_sk1").accuracy == 74.9
    assert aliases.find("simclrv2/pretrained/r50_1x_sk0").accuracy == 71.7
    assert aliases.find("simclrv1/pretrain/1x").accuracy is None


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("simclrv2/finetuned_100/r50_1x_sk0", "simclrv2/finetuned_100pct/r50_1x_sk0"),
        ("simclrv2/pretrained/r50_1x_sk", "simclrv2/pretrained/r50_1x_sk0"),
        ("simclrv2/pretrained/r152_3x_sk0", "simclrv2/pretrained/r152_3x_sk1"),
        ("simclrv1/finetuned_10pct/2x", "simclrv1/finetune_10pct/2x"),
        ("simclv2/pretrained/r50_1x_sk0", "simclrv2/pretrained/r50_1x_sk0"),
    ],
)
def test_a_typo_gets_the_nearest_name(typed, meant):
    assert aliases.looks_like_one(typed)
    with pytest.raises(UnknownCheckpoint, match=f"Did you mean .*'{meant}'"):
        aliases.find(typed)


@pytest.mark.parametrize("path", ["./simclrv2/x", "/data/r50", "exported/model", "s3://b/simclr"])
def test_a_path_is_no_alias(path):
    assert not aliases.looks_like_one(path)


@pytest.mark.parametrize("settings", [{"depth": 50, "width": 2.0}, {"sk_ratio": 0.0625}])
def test_names_of_architectures_go_both_ways(settings):
    backbone = BackboneSettings(**settings)
    assert aliases.backbone_of(aliases.architecture_of(backbone)) == backbone


def test_every_address_has_a_folder_of_its_own(tmp_path):
    urls = [
        *("gs://b/m", "s3://b/m", "gs://b/m#2", "gs://b/m?v=2", "gs://b/m/n", "gs://b/M"),
        *("gs://bucket/../../etc", f"https://b/{'x' * 400}", f"https://c/{'x' * 400}"),
    ]
    folders = {places.kept_at(url, tmp_path) for url in urls}
    assert len(folders) == len(urls)
    assert {folder.parent for folder in folders} == {tmp_path / "downloads"}
    assert max(len(folder.name) for folder in folders) < 120
    assert places.kept_at("gs://b/m/", tmp_path) == places.kept_at("gs://b/m", tmp_path)
    assert places.kept_at("gs://b/m", tmp_path).name.startswith("b_m-")
