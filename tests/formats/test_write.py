import json

import pytest
import torch

from subnet_search.data import ArrayDataset
from subnet_search.errors import SubnetSearchError
from subnet_search.formats import FormatsConfig, load_masks, load_packed, onnx, write, write_formats
from subnet_search.formats.pt2 import METADATA
from subnet_search.formats.pte import WrittenPte


def images_of(ensemble, count: int = 12) -> ArrayDataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, *ensemble.card.input_shape), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, len(ensemble.card.classes), (count,), generator=generator)
    return ArrayDataset(images, labels)


def test_every_format_is_written_and_reported(digits, tmp_path, needs) -> None:
    needs("onnx")
    asked = FormatsConfig(("packed", "onnx", "pt2", "masksembles", "member"))
    report = write_formats(digits, tmp_path, asked, images_of(digits))
    assert list(report) == list(asked.formats)
    named = ["report.json", *(name for entry in report.values() for name in entry["files"])]
    assert sorted(named) == sorted(path.name for path in tmp_path.iterdir())
    for entry in report.values():
        assert entry["bytes"] == sum((tmp_path / name).stat().st_size for name in entry["files"])
    times = report["onnx"]["timings_ms"]
    assert report["onnx"]["form"] == min(times, key=times.get)  # onnxruntime was asked
    assert {"sliced", "grouped"} <= set(times)
    assert set(times).isdisjoint(report["onnx"]["unavailable"])
    assert load_masks(tmp_path / "masks.npz", digits.graph).digest() == digits.masks.digest()
    assert load_packed(tmp_path / "packed.pt2").members == digits.members


def test_what_is_there_is_not_made_again_and_stays_in_the_report(digits, padded, tmp_path) -> None:
    def dated() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.name != "report.json"}

    first = write_formats(digits, tmp_path, FormatsConfig(("member",)), images_of(digits))
    before = dated()
    both = write_formats(digits, tmp_path, FormatsConfig(("member", "masksembles")), images_of(digits))
    assert {name: time for name, time in dated().items() if name in before} == before
    assert both["member"] == first["member"]
    assert json.loads((tmp_path / "report.json").read_text()) == json.loads(json.dumps(both))
    (tmp_path / "member-1.safetensors").unlink()
    write_formats(digits, tmp_path, FormatsConfig(("member",)), images_of(digits))
    assert dated().keys() == before.keys() | set(both["masksembles"]["files"])
    other = write_formats(padded, tmp_path, FormatsConfig(("member",)), images_of(padded))
    assert other["member"]["made_of"] != both["member"]["made_of"]


def test_new_limits_are_written_into_files_that_tell_them_and_into_no_others(digits, tmp_path) -> None:
    asked = FormatsConfig(("member", "pt2"))
    found = [write_formats(digits, tmp_path, asked, images_of(digits), refuse={"total": t}) for t in (1.0, 1.0, 2.0)]
    made_of = [{name: entry["made_of"] for name, entry in report.items()} for report in found]
    assert made_of[0] == made_of[1]
    assert made_of[1]["member"] == made_of[2]["member"]
    assert made_of[1]["pt2"] != made_of[2]["pt2"]
    extra = {METADATA: ""}
    torch.export.load(tmp_path / "ensemble.pt2", extra_files=extra)
    assert json.loads(json.loads(extra[METADATA])["refuse"]) == {"total": {"above": 2.0}}


def test_an_onnx_file_that_cannot_be_written_is_told_by_its_name(digits, tmp_path, needs, monkeypatch) -> None:
    needs("onnx")
    monkeypatch.setitem(onnx.export_onnx.__kwdefaults__, "tolerance", -1.0)
    with pytest.raises(SubnetSearchError, match=rf"{tmp_path}/ensemble.onnx: output .* differs .* nothing was written"):
        write_formats(digits, tmp_path, FormatsConfig(("onnx",)), images_of(digits))
    assert not (tmp_path / "ensemble.onnx").exists()


def test_a_form_that_cannot_be_written_keeps_no_other_from_being_written(digits, tmp_path, monkeypatch) -> None:
    def refuse(message: str) -> None:
        raise SubnetSearchError(message)

    official = write.to_masksembles
    monkeypatch.setattr(write, "to_masksembles", lambda _: refuse("no official layers"))
    monkeypatch.setattr(write, "export_pt2", lambda *_, **__: refuse("no program"))
    asked = FormatsConfig(("pt2", "masksembles", "member"))
    with pytest.raises(SubnetSearchError, match="could not be written") as stopped:
        write_formats(digits, tmp_path, asked, images_of(digits))
    assert str(stopped.value).splitlines() == [
        f"formats that could not be written: pt2, masksembles, the others are in {tmp_path}",
        "pt2: no program",
        "masksembles: no official layers",
    ]
    assert list(json.loads((tmp_path / "report.json").read_text())) == ["member"]
    monkeypatch.setattr(write, "to_masksembles", official)
    with pytest.raises(SubnetSearchError, match=r"written: pt2, the others"):
        write_formats(digits, tmp_path, asked, images_of(digits))
    assert list(json.loads((tmp_path / "report.json").read_text())) == ["member", "masksembles"]


@pytest.mark.parametrize("int8", [False, True])
def test_the_executorch_file_is_of_one_image_and_quantised_where_asked_for(digits, tmp_path, monkeypatch, int8) -> None:
    given, timed = [], []

    def export(packed, _card, path, **options) -> WrittenPte:
        given.append(options)
        path.parent.mkdir()
        path.write_bytes(packed.form.shape.encode())
        return WrittenPte(path, 1, 0.0, (1,), 1, {})

    class Program(torch.nn.Module):
        def __init__(self, *_) -> None:
            super().__init__()

        def forward(self, x) -> None:
            timed.append(len(x))

    monkeypatch.setattr(write, "export_pte", export)
    monkeypatch.setattr(write, "PteNetwork", Program)
    images, labelled = images_of(digits), images_of(digits)
    found = write_formats(digits, tmp_path, FormatsConfig(("pte",), int8=int8, pack_batch=5), images, labelled)["pte"]
    assert (tmp_path / "ensemble.pte").read_text() == found["form"] == next(iter(found["timings_ms"]))
    assert set(timed) == {1}
    assert len(given) >= 2
    for options in given:
        assert options["input_kind"] == "uint8"
        assert (options.get("calibration") is images, options.get("labelled") is labelled) == (int8, int8)


def test_a_damaged_report_is_named(digits, tmp_path) -> None:
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(SubnetSearchError, match=r"report.json is no JSON .* delete it"):
        write_formats(digits, tmp_path, FormatsConfig(("member",)), images_of(digits))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"formats": ("tflite",)}, "expected some of packed, onnx"),
        ({"input_kind": "jpeg"}, "input_kind is 'jpeg'"),
        ({"pack_batch": 0}, "pack_batch is 0"),
    ],
)
def test_other_settings_are_refused(settings, message) -> None:
    with pytest.raises(SubnetSearchError, match=message):
        FormatsConfig(**settings)
