"""`saelens-steer convert` writes a complete SAE in SAELens's format, or fails in one sentence."""

import sys

import legacy_files as old
import pytest
from legacy_files import OWN, X
from sae_lens import SAE

from saelens_steer import cli
from saelens_steer.sae import convert_sae, load_sae, save_sae


@pytest.fixture
def convert(monkeypatch, capsys):
    """Run the command in this process: its exit status, stdout and stderr."""

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["saelens-steer", "convert", *map(str, args)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        printed = capsys.readouterr()
        return stopped.value.code, printed.out, printed.err

    return run


def test_plain_saelens_reads_what_was_converted(convert, tmp_path):
    beside = {"activation_mean": old.MEAN, "activation_norm": 7.5}
    file = old.saved(tmp_path / "old.pt", {"state_dict": OWN, **beside, **old.RELU})
    hook = "blocks.2.hook_resid_pre"
    status, out, err = convert(file, tmp_path / "new", "--hook-name", hook, "--d-model", old.D_IN)
    assert status == 0 and out.splitlines()[-1] == str(tmp_path / "new")
    assert "a standard SAE" in err
    assert {p.name for p in (tmp_path / "new").iterdir()} == {"cfg.json", "sae_weights.safetensors"}
    sae = SAE.load_from_disk(str(tmp_path / "new"))
    assert sae.cfg.metadata.hook_name == hook
    z, rebuilt = old.reference(X, mean=old.MEAN, scale=7.5)
    assert (sae.encode(X) - z).abs().max() < 1e-5 * z.abs().max()
    assert (sae(X) - rebuilt).abs().max() < 1e-5 * rebuilt.abs().max()


def test_an_empty_folder_is_filled_and_a_full_one_left_alone(convert, tmp_path):
    file, new = old.saved(tmp_path / "old.pt", OWN | old.RELU), tmp_path / "new"
    new.mkdir()
    assert convert(file, new)[0] == 0
    before = {p.name: p.read_bytes() for p in new.iterdir()}
    status, out, err = convert(file, new)
    assert (status, out) == (2, "") and "not empty: choose another folder" in err
    assert {p.name: p.read_bytes() for p in new.iterdir()} == before


BAD = {
    "not there": (None, (), "not an existing file or folder"),
    "ambiguous": ({"dictionary": old.W_DEC}, (), "d_model"),
    "another width": (OWN, ("--d-model", "7"), "the model says d_in = 7"),
    "an id that is none": (OWN, ("--sae-id", "x"), "leave out sae_id"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_status_2_and_leaves_nothing(convert, tmp_path, case):
    content, options, hint = BAD[case]
    if content:
        old.saved(tmp_path / "old.pt", content)
    status, out, err = convert(tmp_path / "old.pt", tmp_path / "new", *options)
    assert (status, out) == (2, "") and hint in err
    assert len(err.strip().splitlines()) == 1 and "Traceback" not in err
    assert not (tmp_path / "new").exists() and len(list(tmp_path.iterdir())) == bool(content)


NOT_PLAIN = {
    "unit norm": ({"normalize_activations": "per_token"}, "scaled to unit norm per token"),
    "nothing": ({}, ""),
}


@pytest.mark.parametrize("case", NOT_PLAIN)
def test_conversion_warns_of_what_plain_saelens_does_not_undo(convert, tmp_path, case):
    said, hint = NOT_PLAIN[case]
    file = old.saved(tmp_path / "old.pt", OWN | old.RELU | said)
    status, _, err = convert(file, tmp_path / "new")
    assert status == 0 and hint in err and ("warning" in err) == bool(hint)


def test_conversion_warns_of_folded_centring(tmp_path, capsys):
    sae = load_sae(
        old.saved(tmp_path / "a.pt", OWN | old.RELU), hook_name="blocks.2.hook_resid_pre"
    )
    sae.cfg.metadata.model_name = "gpt2-small"
    sae.cfg.metadata.model_from_pretrained_kwargs = {"center_writing_weights": True}
    convert_sae(save_sae(sae, tmp_path / "centred"), tmp_path / "new")
    assert "without their mean over d_model" in capsys.readouterr().err
