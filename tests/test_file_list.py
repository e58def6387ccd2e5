"""docs/architecture.md lists every module with the first line of its docstring."""

from docs import list_files


def test_the_file_list_is_current():
    page = list_files.PAGE.read_text("utf-8")
    assert page == list_files.updated(page), "run python docs/list_files.py"


def test_every_module_says_what_it_is():
    for package in list_files.PACKAGES:
        for file in (list_files.ROOT / package).rglob("*.py"):
            said = list_files.summary(file)
            assert said.endswith((".", ":")) and len(said) <= 100, (file, said)
