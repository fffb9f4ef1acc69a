"""Two run folders are the same if their answers are, whatever their files are called."""

import json

import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
from safetensors.torch import save_file

from benchmarks import same

NAN = float("nan")
TENSOR = torch.tensor([[1.0, NAN], [0.1, -2.0]])
PROVENANCE = {
    "saelens_steer": "1",
    "packages": {"torch": "2"},
    "model": {"name": "m", "folder": ""},
}


@pytest.fixture
def folders(tmp_path):
    """Two runs with equal answers, under old and new names."""
    old = write_run(tmp_path / "old")
    new = write_run(tmp_path / "new")
    for before, after in {"front": "tradeoffs", "matrix": "tradeoffs_by_domain"}.items():
        (new / f"{before}.csv").rename(new / f"{after}.csv")
    (new / "twin").rename(new / "frozen_decoder_baseline")
    change(new / "tradeoffs.csv", "on_front", "on_pareto_front")
    return old, new


def write_run(folder):
    """A small run folder with a file of every kind."""
    for name in ("sweep", "sae", "twin", "plots", ".store"):
        (folder / name).mkdir(parents=True)
    rows = pd.DataFrame({"direction": ["a", "b", "b"], "kl": [0.1, NAN, 3.0]})
    rows.to_parquet(folder / "sweep" / "rows-00000.parquet")
    table = pd.DataFrame(
        {"direction": ["007", "b,\n"], "on_front": [True, False], "kl": [0.1, NAN]}
    )
    for name in ("front.csv", "matrix.csv", "twin/claims.csv"):
        table.to_csv(folder / name, index=False)
    lines = [{"text": "one", "alpha": 0.5}, {"text": "two", "alpha": 4, "more": [1, 2]}]
    (folder / "completions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_json(folder / "features.json", {"scores": {"3": {"auroc": 0.75}}, "order": [3, 1]})
    write_json(folder / "provenance.json", PROVENANCE)
    save_file({"W_dec": TENSOR}, folder / "sae" / "sae_weights.safetensors")
    figure = go.Figure(go.Scatter(x=[1, 2], y=torch.tensor([0.5, 0.25]).numpy(), name="kl"))
    figure.add_vline(x=1.5).write_html(folder / "plots" / "kl.html", include_plotlyjs="directory")
    page = "<h1>Steering report: x</h1><p>An <b>effect</b> of 0.5</p><script>var x = 1</script>"
    (folder / "report.html").write_text(page)
    return folder


def write_json(path, data):
    path.write_text(json.dumps(data))


def change(path, before, after):
    """Replace a text that the file has once."""
    text = path.read_text()
    assert text.count(before) == 1
    path.write_text(text.replace(before, after))


@pytest.fixture
def found(folders, capsys):
    """The exit status, and the lines printed, of comparing the two folders."""

    def compare(*options):
        status = same.main([*map(str, folders), *options])
        return status, capsys.readouterr().out.splitlines()

    return compare


def test_renamed_files_and_columns_make_no_difference(found):
    assert found("--pages") == (0, ["no differences in 10 files"])


def test_a_folder_is_equal_to_itself_under_its_old_names(folders, capsys):
    assert same.main([str(folders[0])] * 2) == 0
    assert capsys.readouterr().out == "no differences in 8 files\n"


@pytest.mark.parametrize(
    ("name", "before", "after", "line"),
    [
        ("tradeoffs.csv", "0.1", "0.10000000000000002", "kl, row 1: 0.1 -> 0.10000000000000002"),
        ("tradeoffs.csv", "007", "7", "direction, row 1: '007' -> 7"),
        ("tradeoffs.csv", "False", "True", "on_pareto_front, row 2: 'False' -> 'True'"),
        ("tradeoffs.csv", "kl", "KL", "kl: [0.1, ''] -> absent"),
        ("frozen_decoder_baseline/claims.csv", "0.1", "-0.1", "kl, row 1: 0.1 -> -0.1"),
        ("completions.jsonl", "0.5", "0.25", "row 1.alpha: 0.5 -> 0.25"),
        ("completions.jsonl", "[1, 2]", "[1, 3]", "row 2.more[1]: 2 -> 3"),
        ("features.json", "0.75", "null", "scores.3.auroc: 0.75 -> None"),
        ("features.json", "[3, 1]", "[3, 1, 2]", "order, length: 2 -> 3"),
        ("features.json", "[3, 1]", "[3, true]", "order[1]: 1 -> True"),
        ("features.json", "}", "", "cannot be read: "),
        ("provenance.json", '"m"', '"n"', "model.name: 'm' -> 'n'"),
    ],
)
def test_one_changed_value_is_reported_with_its_place(found, folders, name, before, after, line):
    path = folders[1] / name
    path.write_text(path.read_text().replace(before, after, 1))
    status, printed = found()
    assert status == 1
    assert printed[0].startswith(f"{name}: {line}")
    assert printed[-1].endswith(" in 1 of 8 files")


@pytest.mark.parametrize(("value", "shown"), [(0.3, "0.10000000149011612 -> "), (NAN, "nan")])
def test_one_changed_weight_is_reported_with_its_index(found, folders, value, shown):
    tensor = TENSOR.clone()
    tensor[1, 0] = value
    save_file({"W_dec": tensor}, folders[1] / "sae" / "sae_weights.safetensors")
    status, (line, _) = found()
    assert status == 1
    assert line.startswith("sae/sae_weights.safetensors: W_dec[1, 0]: ") and shown in line


def test_weights_of_another_type_or_shape_are_different(found, folders):
    save_file({"W_dec": TENSOR.bfloat16()}, folders[1] / "sae" / "sae_weights.safetensors")
    assert "W_dec: 'float32 [2, 2]' -> 'bfloat16 [2, 2]'" in found()[1][0]


def test_zero_and_minus_zero_are_different_and_nan_equals_nan():
    assert not same.same(0.0, -0.0) and same.same(NAN, NAN) and same.same(1, 1.0)
    assert not same.same(1, True) and not same.same("1", 1) and not same.same(None, NAN)
    zero = torch.zeros(2)
    assert [place for place, *_ in same.differences("t", zero, -zero)] == ["t[0]", "t[1]"]
    assert not list(same.differences("t", TENSOR, TENSOR.clone()))


def test_the_order_of_columns_and_the_cut_of_a_sweep_do_not_matter(found, folders):
    place = folders[1] / "sweep"
    rows = pd.read_parquet(place, columns=["kl", "direction"])
    rows[:1].to_parquet(place / "rows-00000.parquet", index=False)
    rows[1:].to_parquet(place / "rows-00001.parquet", index=False)
    assert found()[0] == 0
    rows.iloc[[2, 1]].to_parquet(place / "rows-00001.parquet", index=False)
    assert found()[1][0] == "sweep/*.parquet: kl, row 2: None -> 3.0"


def test_a_dropped_row_is_reported_as_such(found, folders):
    change(folders[1] / "tradeoffs_by_domain.csv", '"b,\n",False,\n', "")
    status, printed = found()
    assert printed[0] == "tradeoffs_by_domain.csv: number of rows: 2 -> 1"
    assert (status, len(printed)) == (1, 2)


def test_files_on_one_side_or_under_both_names_are_different(found, folders):
    old, new = folders
    (old / "features.json").unlink()
    (new / "front.csv").write_bytes((new / "tradeoffs.csv").read_bytes())
    status, printed = found()
    assert status == 1
    assert "features.json: only in NEW" in printed
    assert "tradeoffs.csv: NEW has it under two names: front.csv, tradeoffs.csv" in printed


def test_a_renamed_column_may_be_added_beside_the_old_one_only_with_the_same_cells(found, folders):
    table = pd.read_csv(folders[1] / "tradeoffs.csv", dtype={"direction": str})
    both = table.assign(on_front=table["on_pareto_front"])
    both.to_csv(folders[1] / "tradeoffs.csv", index=False)
    assert found()[0] == 0
    both.assign(on_front=True).to_csv(folders[1] / "tradeoffs.csv", index=False)
    assert found()[1][0] == "tradeoffs.csv: on_front: absent -> ['True', 'True']"


def test_renamed_values_and_prefixes_make_no_difference(found, folders, monkeypatch):
    change(folders[1] / "completions.jsonl", '"two"', '"three"')
    change(folders[1] / "features.json", '"scores"', '"all_scores"')
    assert found()[0] == 1
    monkeypatch.setitem(same.RENAMED_VALUES, "completions.jsonl", {"two": "three"})
    monkeypatch.setitem(same.RENAMED_COLUMNS, "*", {"sco*": "all_sco*"})
    assert found()[0] == 0


def test_versions_caches_configs_and_pages_are_no_answers(found, folders):
    write_json(folders[1] / "provenance.json", PROVENANCE | {"python": "4", "packages": {}})
    for name in (".store/a.json", "config.yaml", "plots/kl.png", "report.html", "plots/new.html"):
        (folders[1] / name).write_text("other")
    assert found()[0] == 0


def test_at_most_twenty_differences_of_a_file_are_printed(found, folders):
    for folder, step in zip(folders, (1, 2), strict=True):
        write_json(folder / "features.json", [step * n for n in range(26)])
    printed = found()[1]
    assert len(printed) == 22
    assert printed[20:] == ["features.json: and 5 more", "25 differences in 1 of 8 files"]


@pytest.mark.parametrize(
    ("name", "before", "after", "line"),
    [
        ("plots/kl.html", "[1,2]", "[1,3]", "traces[0].x[1]: 2 -> 3"),
        ("plots/kl.html", "AAAAPwAAgD4=", "AAAAPwAAAD8=", "traces[0].y[1]: 0.25 -> 0.5"),
        ("plots/kl.html", '"x0":1.5', '"x0":1.25', "shapes[0].x0: 1.5 -> 1.25"),
        ("report.html", "<p>", "<p>First</p><p>", "line 1: absent -> 'First'"),
        ("report.html", "of 0.5", "of 0.25", "line 1: 'An effect of 0.5' -> 'An effect of 0.25'"),
    ],
)
def test_figures_and_page_texts_are_compared_if_asked(found, folders, name, before, after, line):
    change(folders[1] / name, before, after)
    assert found()[0] == 0
    assert found("--pages") == (1, [f"{name}: {line}", "1 difference in 1 of 10 files"])


def test_scripts_markup_and_the_name_of_the_run_are_no_text(found, folders):
    for before, after in (("x = 1", "x = 2"), ("<b>", "<em>"), ("report: x", "report: y")):
        change(folders[1] / "report.html", before, after)
    assert found("--pages")[0] == 0


@pytest.mark.parametrize("given", [["old"], ["old", "nothing"], ["old", "old", "old"]])
def test_bad_usage_exits_with_status_two(folders, given):
    with pytest.raises(SystemExit) as stop:
        same.main([str(folders[0].parent / name) for name in given])
    assert stop.value.code == 2
