"""The file list in docs/architecture.md is current."""

from docs import list_files


def test_the_file_list_is_current():
    page = list_files.PAGE.read_text("utf-8")
    assert page == list_files.updated(page), "run python docs/list_files.py"


def test_every_module_has_a_one_line_summary():
    for package in list_files.PACKAGES:
        for file in (list_files.ROOT / package).rglob("*.py"):
            summary = list_files.summary(file)
            assert summary.endswith((".", ":")) and len(summary) <= 100, (file, summary)
