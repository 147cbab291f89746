"""Manifests that are not what they should be."""

import json
from pathlib import Path

import pytest

from subnet_search.errors import SubnetSearchError
from subnet_search.export import export_ensemble, read_manifest


@pytest.fixture
def exported(tmp_path, plain) -> Path:
    return export_ensemble(plain, tmp_path / "out")


def test_a_missing_folder_is_refused(tmp_path) -> None:
    with pytest.raises(SubnetSearchError, match="missing: found nothing, expected the folder of an exported ensemble"):
        read_manifest(tmp_path / "missing")


def test_a_file_is_refused(exported) -> None:
    with pytest.raises(SubnetSearchError, match=r"model.safetensors: found a file, expected the folder"):
        read_manifest(exported / "model.safetensors")


def test_a_folder_without_manifest_is_refused(exported) -> None:
    (exported / "manifest.json").unlink()
    with pytest.raises(SubnetSearchError, match=r"out: has no manifest.json"):
        read_manifest(exported)


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": 1', b"\xff\xfe\x00", b"[" * 100_000])
def test_broken_json_is_refused(exported, content) -> None:
    (exported / "manifest.json").write_bytes(content)
    with pytest.raises(SubnetSearchError, match="is truncated or no JSON"):
        read_manifest(exported)


@pytest.mark.parametrize("content", ["[]", "1", "null"])
def test_other_json_is_refused(exported, content) -> None:
    (exported / "manifest.json").write_text(content)
    with pytest.raises(SubnetSearchError, match="expected the manifest of an exported ensemble"):
        read_manifest(exported)


@pytest.mark.parametrize("version", [0, 2, "3", None])
def test_another_format_version_is_refused(exported, edit_manifest, version) -> None:
    edit_manifest(exported, lambda content: content.update(format=version, versions={"subnet-search": "9.8.7"}))
    with pytest.raises(
        SubnetSearchError, match=rf"format version {version!r} \(written by subnet-search 9.8.7\), expected 3"
    ):
        read_manifest(exported)


def test_every_changed_value_is_refused(exported) -> None:
    path = exported / "manifest.json"
    text = path.read_text()
    for old, new in (('"cat"', '"cow"'), ('"seed": 5', '"seed": 6'), ('"kind": "inner"', '"kind": "outer"')):
        assert old in text
        path.write_text(text.replace(old, new, 1))
        with pytest.raises(SubnetSearchError, match="the file is damaged or was edited"):
            read_manifest(exported)


def test_layout_does_not_matter(exported, plain) -> None:
    path = exported / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))
    assert read_manifest(exported).masks.digest() == plain.masks.digest()


def test_masks_of_another_digest_are_refused(exported, edit_manifest) -> None:
    def flip(content) -> None:
        row = content["masks"]["bits"]["fc"][0]
        content["masks"]["bits"]["fc"][0] = f"{int(row, 16) ^ 0x4000:0{len(row)}x}"

    edit_manifest(exported, flip)
    with pytest.raises(SubnetSearchError, match="the masks are not those of the digest"):
        read_manifest(exported)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("groups"),
        lambda content: content["masks"].pop("bits"),
        lambda content: content["masks"]["bits"].update(fc=["zz"]),
        lambda content: content["masks"]["bits"].update(nowhere=["ff"] * 3),
        lambda content: content["groups"].update(edges=[[0, 99, {}]]),
        lambda content: content["groups"].update(groups=7),
        lambda content: content.update(ensemble=[]),
    ],
)
def test_a_manifest_of_another_shape_is_refused(exported, edit_manifest, change) -> None:
    edit_manifest(exported, change)
    with pytest.raises(SubnetSearchError, match="is no manifest of format version 3"):
        read_manifest(exported)


def test_a_broken_card_is_refused(exported, edit_manifest) -> None:
    edit_manifest(exported, lambda content: content["card"].update(std=[0.0]))
    with pytest.raises(SubnetSearchError, match="expected positive numbers"):
        read_manifest(exported)
