"""The texts of the study's SAEs: what is read of a page, and where long texts are cut."""

import gzip

from scripts.smollm2 import corpus
from scripts.smollm2.answers import conversations
from scripts.smollm2.prompts import SETS, mixed, rows

PAGE = r"""<html><head><title>T</title><style>p {}</style></head><body><nav>menu</nav>
<h1>Norms<a>¶</a></h1><p>Let \(x\)
  be small:</p> \[\|x\| < 1\] <pre>def f():
    return 1</pre><script>let a</script></body></html>"""


def test_of_a_page_its_text_is_read_with_dollars_around_latex(tmp_path):
    (file := tmp_path / "page.html").write_text(PAGE)
    lines = [line.strip() for line in corpus.text_of(file).splitlines()[:3]]
    assert lines == ["Norms", "Let $x$ be small:", r"$$\|x\| < 1$$"]
    assert corpus.text_of(file).endswith("def f():\n    return 1")


def test_other_files_are_read_as_they_are(tmp_path):
    text = "a  b\n  c\n"
    (tmp_path / "a.py").write_text(text)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text.encode()))
    assert [corpus.text_of(file) for file in sorted(tmp_path.iterdir())] == [text, text]


def test_pieces_are_a_text_cut_at_ends_of_lines():
    text = "".join(f"line {n}\n" for n in range(100))
    parts = list(corpus.pieces(text, 50))
    assert "".join(parts) == text and max(map(len, parts)) <= 50
    assert all(part.endswith("\n") for part in parts)
    assert [len(part) for part in corpus.pieces("x" * 120, 50) if part] == [50]


def test_no_prompt_of_the_study_is_answered_for_the_corpus():
    asked = {turns[-1]["content"] for turns in conversations()}
    study = [row for domains in SETS.values() for key in domains for row in rows(key, domains[key])]
    assert len(asked) > 1500
    assert asked.isdisjoint(row["messages"][-1]["content"] for row in [*study, *mixed()])
