import gzip
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from services.core.settings import Settings, StoreSettings
from services.core.store import Store
from tiler import pages
from tiler.app import create_app

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
IMPORT = re.compile(r"""(?:^|[;}\s])(?:import|export)\s*(?:[\w*{}\s,$]+?\s*from\s*)?["'](\.[^"']+)["']""", re.MULTILINE)


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    store = Store.open("memory://pages", StoreSettings())
    with TestClient(create_app(Settings(store="memory://pages"), store)) as client:
        yield client


class Tags(HTMLParser):
    """All tags of a page with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.inline: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found and self.found[-1][0] in {"script", "style"} and data.strip():
            self.inline.append(data)


def page_of(client: TestClient, path: str = "/map") -> str:
    answer = client.get(path)
    assert answer.status_code == 200
    return answer.text


def addresses(text: str) -> set[str]:
    return {
        value
        for tag, attributes in Tags(text).found
        for name, value in attributes.items()
        if name in {"src", "href"} and value and tag != "a"
    }


def test_page_runs_nothing_inline_and_its_policy_allows_nothing_inline(client: TestClient) -> None:
    answer = client.get("/map")
    tags = Tags(answer.text)
    assert tags.inline == []
    assert [
        name for _, attributes in tags.found for name in attributes if name.startswith("on") or name == "style"
    ] == []
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == policy["style-src"] == "'self'"
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert "http" not in answer.headers["content-security-policy"]


def test_everything_the_page_names_is_served_for_ever(client: TestClient) -> None:
    waiting, seen = addresses(page_of(client)), set[str]()
    while waiting:
        address = waiting.pop()
        seen.add(address)
        answer = client.get(address)
        assert answer.status_code == 200, address
        assert "immutable" in answer.headers["cache-control"], address
        if address.endswith(".js") and "/vendor/" not in address:
            waiting |= {str(answer.url.join(found).path) for found in IMPORT.findall(answer.text)} - seen
    names = {re.sub(r"^/static/[0-9a-f]{16}/", "", address) for address in seen}
    assert {"main.js", "world.js", "chart.js", "page.css", "icon.svg"} <= names
    ours = {path for path in pages.site().assets if path.endswith(".js") and not path.startswith("vendor/")}
    assert ours <= names, "a script that no other one imports"
    assert {path for path in pages.LIBRARIES if path.endswith(("gl.mjs", "esm.js", ".css", "min.js"))} <= names


def test_no_script_or_style_of_ours_names_another_host() -> None:
    for path, asset in pages.site().assets.items():
        if not path.startswith("vendor/"):
            text = asset.body.decode()
            assert re.findall(r"(?<!xmlns=\")https?://[a-z]", text) == [], path


def test_digest_of_the_addresses_changes_with_any_byte(tmp_path: Path) -> None:
    shutil.copytree(pages.STATIC, tmp_path / "static")
    before = pages.read_site(tmp_path / "static").digest
    assert before == pages.site().digest
    script = tmp_path / "static" / "chart.js"
    script.write_text(script.read_text() + "\n")
    assert pages.read_site(tmp_path / "static").digest != before


def test_etags_are_strong_and_hold_for_one_encoding_each(client: TestClient) -> None:
    address = next(name for name in addresses(page_of(client)) if name.endswith("page.css"))
    plain = client.get(address, headers={"accept-encoding": "identity"})
    packed = client.get(address, headers={"accept-encoding": "br, gzip;q=0.5"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.content == plain.content == (pages.STATIC / "page.css").read_bytes()
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"])
    assert plain.headers["etag"] != packed.headers["etag"]
    assert plain.headers["vary"] == packed.headers["vary"] == "Accept-Encoding"
    for answer, encoding in ((plain, "identity"), (packed, "gzip")):
        tag = answer.headers["etag"]
        assert re.fullmatch(r'"[^"]+"', tag)
        headers = {"accept-encoding": encoding, "if-none-match": f'"other", W/{tag}'}
        again = client.get(address, headers=headers)
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert client.get(address, headers={"accept-encoding": "gzip;q=0"}).headers["etag"] == plain.headers["etag"]


def test_page_is_asked_for_again_and_answered_304(client: TestClient) -> None:
    answer = client.get("/map/one")
    assert answer.headers["cache-control"] == "public, max-age=0, must-revalidate"
    assert client.get("/map/two").headers["etag"] != answer.headers["etag"]
    assert client.get("/map/one", headers={"if-none-match": answer.headers["etag"]}).status_code == 304


def test_without_or_with_an_old_digest_a_file_is_served_but_not_for_ever(client: TestClient) -> None:
    for path in ("page.css", f"{'0' * 16}/page.css", f"{'0' * 16}/vendor/world-atlas/countries-50m.json"):
        answer = client.get(f"/static/{path}")
        assert answer.status_code == 200, path
        assert "immutable" not in answer.headers["cache-control"], path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "index.html",
        "../pages.py",
        "%2e%2e/pages.py",
        "vendor/maplibre-gl/LICENSE.txt",
        "nothing.js",
        f"{'0' * 16}/",
    ],
)
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    answer = client.get(f"/static/{path}")
    assert answer.status_code == 404
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    ("accept", "query", "media_type"),
    [
        (BROWSER, "", "text/html"),
        ("text/html", "?utm_source=letter", "text/html"),
        ("*/*", "", "application/json"),
        ("", "", "application/json"),
        ("application/json", "", "application/json"),
        ("application/json, text/html;q=0.5", "", "application/json"),
        ("text/html;q=0, */*", "", "application/json"),
        ("text/html;q=x, */*", "", "application/json"),
        (BROWSER, "?f=json", "application/json"),
        ("*/*", "?f=html", "text/html"),
    ],
)
def test_root_is_the_page_for_browsers_and_the_landing_document_for_the_rest(
    client: TestClient, accept: str, query: str, media_type: str
) -> None:
    answer = client.get(f"/{query}", headers={"accept": accept})
    assert answer.status_code == 200
    assert answer.headers["content-type"].split(";")[0] == media_type
    assert "Accept" in answer.headers["vary"]
    if media_type == "application/json":
        assert {"conformsTo", "links"} <= answer.json().keys()


def test_root_refuses_another_encoding(client: TestClient) -> None:
    answer = client.get("/?f=xml")
    assert answer.status_code == 400
    assert "f=html" in answer.json()["detail"]


def test_what_a_path_holds_cannot_become_markup(client: TestClient) -> None:
    text = page_of(client, "/map/%22%3E%3Cscript%20src=x%3E%7B%7Broot%7D%7D")
    root = next(attributes for tag, attributes in Tags(text).found if tag == "html")
    assert root["data-collection"] == '"><script src=x>{{root}}'
    assert sum(tag == "script" for tag, _ in Tags(text).found) == 1


def test_addresses_hold_the_path_that_a_proxy_serves_it_under() -> None:
    store = Store.open("memory://prefixed", StoreSettings())
    app = create_app(Settings(store="memory://prefixed"), store)
    with TestClient(app, root_path="/geo") as client:
        text = client.get("/geo/map").text
        assert 'data-root="/geo"' in text
        assert all(address.startswith("/geo/static/") for address in addresses(text))
        assert all(client.get(address).status_code == 200 for address in addresses(text))


def test_head_has_the_headers_and_no_body(client: TestClient) -> None:
    for path in ("/map", "/static/page.css"):
        head, get = client.head(path), client.get(path)
        assert head.content == b""
        assert head.headers["etag"] == get.headers["etag"]
        assert head.headers["content-length"] == get.headers["content-length"]


def test_missing_libraries_are_named_with_the_command_that_brings_them(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(pages.STATIC, tmp_path / "static", ignore=shutil.ignore_patterns("uplot"))
    monkeypatch.setattr(pages, "site", lambda: pages.read_site(tmp_path / "static"))
    answer = client.get("/map")
    assert answer.status_code == 503
    assert "make assets" in answer.json()["detail"]
    assert "uPlot.esm.js" in answer.json()["detail"]


def test_compressed_bytes_are_the_same_in_every_process() -> None:
    body = b"word " * 1000
    packed = pages.Asset(media_type="text/css", body=body).compressed
    assert packed is not None
    assert gzip.decompress(packed) == body
    assert packed[4:8] == bytes(4), "a time in the header would make the bytes differ"
    assert pages.Asset(media_type="text/css", body=b"short").compressed is None
