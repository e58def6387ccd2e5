"""Parser of report pages: text, tags and attributes of well-formed HTML."""

from html.parser import HTMLParser

VOID = {"meta", "line", "circle", "path", "polyline", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """Text, tags and attributes of a page; checks that its tags are balanced."""

    def __init__(self, page):
        super().__init__()
        self.open, self.text, self.tags, self.attributes = [], [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID - {"path", "circle"} or tag in ("path", "circle"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)
        elif self.open:
            assert "url(" not in data and "@import" not in data


def words(page):
    return " ".join(" ".join(page.text).split())


def check_self_contained(page):
    """Check that the page has only internal links and no scripts."""
    assert not {"script", "link", "img", "iframe", "object", "use", "image"} & set(page.tags)
    for name, value in page.attributes:
        assert name not in ("src", "srcset", "data", "action", "style") or "(" not in value
        assert name != "href" or value.startswith("#")
        assert not name.startswith("on") and "//" not in (value or "")
