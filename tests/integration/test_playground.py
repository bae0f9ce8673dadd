"""The playground in a real Chromium, before real services and a real HTTP upstream: what people see and can do."""

import re
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from apps.demo.prompts import PROMPTS
from pointsman.client import SyncDispatcherClient
from pointsman.dispatcher.v1 import decision_pb2
from tests import playgrounds
from tests.answer_artifacts import write_answer
from tests.browsers import MISSING, chromium, chromium_path
from tests.dispatchers import STRONG, WEAK, start_dispatcher
from tests.openai_server import OpenAIServer, openai_server_thread
from tests.processes import SCORER_PORTS, ServiceProcess, eventually
from training.cli import DEFAULT_ARTIFACT

needs_chromium = pytest.mark.skipif(chromium_path() is None, reason=MISSING)

_POOR = f"""
[tenants.poor]
strong_model = "{STRONG}"
weak_model = "{WEAK}"
strong_call_share = 0.5
usd_per_day = 0.000001
on_exhausted = "reject"
"""
_CASCADE = f"""
[tenants.cascade]
strong_model = "{STRONG}"
weak_model = "{WEAK}"
strategy = "cascade"
[tenants.cascade.cascade]
thresholds = [1.0]
"""
_POLICY = 'usd_per_day = 0.5\non_exhausted = "reject"\npace = false'
_MILLISECONDS = 20_000
# Playwright's own five seconds are little on a busy machine.
expect.set_options(timeout=_MILLISECONDS)


@pytest.fixture(scope="module")
def upstream() -> Iterator[OpenAIServer]:
    with openai_server_thread() as server:
        yield server


@pytest.fixture(scope="module")
def dispatcher(upstream: OpenAIServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory = tmp_path_factory.mktemp("playground")
    # A tiny judge of answers beside the shipped scorer: it is sure of none, so that a threshold of 1 accepts none.
    artifacts = f"default={DEFAULT_ARTIFACT},answers={write_answer(directory / 'answers')}"
    with (
        ServiceProcess("scorer_service", env={**SCORER_PORTS, "SCORER_ARTIFACTS": artifacts}) as scorer,
        start_dispatcher(
            directory,
            scorer=scorer.grpc,
            upstream=upstream.base_url,
            tenants={"default": _POLICY},
            more=_POOR + _CASCADE,
        ) as process,
    ):
        yield process.grpc


@pytest.fixture(scope="module")
def url(dispatcher: str) -> Iterator[str]:
    with playgrounds.playground("--dispatcher", dispatcher, "--tenant", "default") as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser: Browser, url: str) -> Iterator[Page]:
    with open_page(browser, url) as opened:
        expect(opened.locator("#decision[data-tier]")).to_be_visible()
        yield opened


@contextmanager
def open_page(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """The page in a context of its own. Scripts must not fail, and nothing may come from elsewhere."""
    context = browser.new_context(**options)
    context.set_default_timeout(_MILLISECONDS)
    page = context.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda line: wrong.append(line.text) if "Content Security Policy" in line.text else None)
    page.on("request", lambda request: None if request.url.startswith(url) else wrong.append(request.url))
    page.goto(url)
    try:
        yield page
        assert not wrong
    finally:
        context.close()


def slide(page: Page, key: str) -> None:
    page.get_by_label("Cost threshold α").press(key)


def compare(page: Page, prompt: str) -> None:
    page.get_by_label("Your prompt").fill(prompt)
    page.get_by_role("button", name="Ask both models").click()
    expect(page.get_by_role("group", name="Which answer was worth it?")).to_be_visible()


@needs_chromium
def test_the_page_opens_with_prompts_of_ours_a_decision_and_the_budget(page: Page) -> None:
    expect(page).to_have_title("Pointsman playground")
    options = page.get_by_label("Pick one of ours").locator("option").evaluate_all("all => all.map(one => one.value)")
    assert options == ["", *PROMPTS]
    expect(page.get_by_label("Your prompt")).to_have_value(PROMPTS[0])
    expect(page.locator("#decision")).to_contain_text(re.compile("would answer: the win probability 0\\.[0-9]{3} is"))
    expect(page.get_by_label("Leave α to the tenant's policy (30% of calls strong)")).to_be_checked()
    gauge = page.get_by_role("meter", name="Win probability of the strong model")
    assert 0 < float(gauge.get_attribute("aria-valuenow") or "") < 1
    expect(page.locator("#windows")).to_contain_text("left of $0.5")


@needs_chromium
def test_a_prompt_is_routed_and_its_answer_streams_in_with_its_cost(page: Page) -> None:
    prompt = "slow " + "and steady wins the race " * 8
    page.get_by_label("Your prompt").fill(prompt)
    page.get_by_role("button", name="Answer", exact=True).click()
    pane = page.locator(".pane")
    text = pane.locator(".text")
    # Words come one by one: some are there while the answer is still being written.
    expect(text).to_contain_text("says: slow and")
    assert pane.get_attribute("aria-busy") == "true"
    assert len(text.inner_text()) < len(prompt)
    expect(pane).to_have_attribute("aria-busy", "false")
    expect(text).to_contain_text(prompt.strip())
    # 15 + 5 cached input tokens and 8 output tokens, at $10 and $30 or at $0.60 and $0.60 per million.
    expect(pane.locator(".cost")).to_have_text(
        re.compile(r"Cost \$0\.000440\..*\$0\.000017\.|Cost \$0\.000017\..*\$0\.000440, so 96% was saved\.")
    )
    pane.get_by_text("Why this model?").click()
    expect(pane.locator("details p")).to_contain_text(re.compile("It went (weak|strong), to"))


@needs_chromium
def test_moving_the_slider_flips_the_decision_and_the_tenant_can_have_it_back(page: Page) -> None:
    decision = page.locator("#decision")
    own = page.get_by_label("Leave α to the tenant's policy")
    before = decision.inner_text()
    slide(page, "End")
    expect(decision).to_contain_text(f"{WEAK} (weak) would answer")
    expect(decision).to_contain_text("below your α, 1.000")
    expect(own).not_to_be_checked()
    slide(page, "Home")
    expect(decision).to_contain_text(f"{STRONG} (strong) would answer")
    expect(page.get_by_role("status")).to_have_text(f"{STRONG}, the strong model, would answer.")
    own.check()
    expect(decision).to_have_text(before)


@needs_chromium
def test_a_vote_reaches_the_dispatchers_records(page: Page, dispatcher: str) -> None:
    slide(page, "End")
    compare(page, "Which of you is worth it?")
    weak, strong = page.locator(".pane").all()
    expect(weak.get_by_role("heading")).to_have_text(f"{WEAK} (weak) – the router's choice")
    expect(strong.get_by_role("heading")).to_have_text(f"{STRONG} (strong)")
    expect(weak.locator(".text")).to_have_text(f"{WEAK} says: Which of you is worth it?")
    expect(strong.locator(".text")).to_have_text(f"{STRONG} says: Which of you is worth it?")
    seen = {}
    for button, kept in {
        "The strong model's is better": decision_pb2.PREFERENCE_OTHER,
        "The weak model's is better": decision_pb2.PREFERENCE_CHOSEN,
    }.items():
        pressed = page.get_by_role("button", name=button)
        pressed.click()
        expect(pressed).to_have_attribute("aria-pressed", "true")
        noted = re.search("request ([0-9a-f]+)", page.locator("#voted").inner_text())
        assert noted is not None
        with SyncDispatcherClient(dispatcher, tenant="default") as client:
            record = client.get_decision(noted[1]).record
        assert record.decision.tier == decision_pb2.TIER_WEAK
        assert record.labels == {"playground": "side by side"}
        assert record.feedback.preference == kept
        seen[noted[1]] = record
    assert len(seen) == 1, "one comparison is one opinion, whose latest counts"


@needs_chromium
def test_the_session_shows_share_and_savings_as_alpha_moves(page: Page) -> None:
    share, saving = page.locator("#share"), page.locator("#saving")
    expect(share).to_have_text("no prompts yet")
    compare(page, "How much does this save?")
    page.get_by_role("button", name="Add our sample prompts").click()
    expect(page.locator("#rows tr")).to_have_count(1 + len(PROMPTS))
    slide(page, "Home")
    expect(share).to_have_text(f"100% ({1 + len(PROMPTS)} of {1 + len(PROMPTS)})")
    expect(saving).to_have_text("0% ($0.000000, 1 answered)")
    slide(page, "End")
    expect(share).to_have_text(f"0% (0 of {1 + len(PROMPTS)})")
    # 440,000 nano-USD from the strong model, 16,800 from the weak one.
    expect(saving).to_have_text("96% ($0.000423, 1 answered)")
    expect(page.get_by_role("img")).to_have_attribute("aria-label", re.compile("At α 1.000: 0% strong, 96% saved"))


@needs_chromium
def test_the_curves_are_steps_at_the_win_probabilities(page: Page) -> None:
    # A tie goes strong, so that a step holds up to and with the win probability at its end.
    rows = [
        {"prompt": "a", "win": 0.25, "weak": 1, "strong": 10},
        {"prompt": "b", "win": 0.75, "weak": 2, "strong": 30},
        {"prompt": "c", "win": 0.75, "weak": None, "strong": None},
        {"prompt": "d", "win": None, "weak": 1, "strong": 10},
    ]
    found = page.evaluate("rows => import('/static/session.js').then(session => session.steps(rows))", rows)
    assert found == [
        {"from": 0, "to": 0.25, "share": 1, "saving": 0},
        {"from": 0.25, "to": 0.75, "share": pytest.approx(2 / 3), "saving": pytest.approx(9 / 40)},
        {"from": 0.75, "to": 1, "share": 0, "saving": pytest.approx(37 / 40)},
    ]


@needs_chromium
def test_the_budget_shows_what_an_answer_has_cost(page: Page) -> None:
    def spent() -> Decimal:
        match = re.search(r"Per day: \$(\S+) spent", page.locator("#windows").inner_text())
        assert match is not None
        return Decimal(match[1])

    expect(page.locator("#windows")).to_contain_text("Per day")
    before = spent()
    slide(page, "Home")
    page.get_by_role("button", name="Answer", exact=True).click()
    for _ in eventually():
        if spent() != before:
            break
    assert spent() - before == Decimal("0.00044")


@needs_chromium
def test_stop_ends_the_models_work(page: Page, upstream: OpenAIServer) -> None:
    gone = upstream.disconnects
    page.get_by_label("Your prompt").fill("drip")
    page.get_by_role("button", name="Answer", exact=True).click()
    expect(page.locator(".pane .text")).to_contain_text("says: drip")
    page.get_by_role("button", name="Stop").press("Enter")
    expect(page.get_by_role("status")).to_have_text("Stopped. What was written until then is paid for.")
    expect(page.get_by_role("button", name="Answer", exact=True)).to_be_focused()
    for _ in eventually():
        if upstream.disconnects > gone:
            break


@needs_chromium
@pytest.mark.parametrize("prompt", ["status 500", "cut"])
def test_a_model_that_fails_is_told_in_a_sentence_and_the_page_goes_on(page: Page, prompt: str) -> None:
    page.get_by_label("Your prompt").fill(prompt)
    page.get_by_role("button", name="Answer", exact=True).click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The model did not answer: deployment ")
    page.wait_for_load_state("networkidle")
    expect(alert).not_to_be_empty()  # The decision and the budget that are had afterwards take nothing back.
    page.get_by_label("Your prompt").fill("Are you well again?")
    page.get_by_label("Your prompt").press("Control+Enter")
    expect(page.locator(".pane .text")).to_contain_text("says: Are you well again?")
    expect(alert).to_be_empty()


@needs_chromium
def test_everything_is_done_by_keyboard_alone(page: Page) -> None:
    def focused() -> str:
        name: str = page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()")
        return name

    def tab_to(name: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if focused() == name:
                outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline != "none", f"{name} shows that it has the focus"
                return
        raise AssertionError(f"Tab never reaches {name}")

    tab_to("Skip to the prompt")
    page.keyboard.press("Enter")
    assert focused() == "prompt"
    page.keyboard.press("Control+A")
    page.keyboard.type("Typed by hand?")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".pane .text")).to_contain_text("says: Typed by hand?")
    tab_to("max-tokens")
    tab_to("answer")
    tab_to("alpha")
    page.keyboard.press("End")
    expect(page.locator("#decision")).to_contain_text("(weak) would answer")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#alpha-value")).to_have_text("0.995")
    tab_to("own-alpha")
    page.keyboard.press("Space")
    expect(page.get_by_label("Leave α to the tenant's policy")).to_be_checked()
    for _ in range(40):
        page.keyboard.press("Shift+Tab")
        if focused() == "compare":
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("group", name="Which answer was worth it?")).to_be_visible()
    tab_to("Both alike")
    page.keyboard.press("Enter")
    expect(page.locator("#voted")).to_contain_text("Noted beside request")
    tab_to("sample")
    page.keyboard.press("Enter")
    expect(page.locator("#rows tr")).to_have_count(1 + len(PROMPTS))
    tab_to("The prompts of this session")
    page.keyboard.press("Enter")
    expect(page.get_by_role("table")).to_be_visible()


@needs_chromium
@pytest.mark.parametrize(
    "look",
    [{"viewport": {"width": 360, "height": 740}}, {"color_scheme": "dark", "reduced_motion": "reduce"}],
    ids=["narrow", "dark"],
)
def test_axe_finds_nothing_and_nothing_is_cut_off(browser: Browser, url: str, look: dict[str, Any]) -> None:
    with open_page(browser, url, **look) as page:
        expect(page.locator("#decision[data-tier]")).to_be_visible()
        assert_accessible(page)
        compare(page, "Is everything in sight?")
        page.get_by_role("button", name="Both alike").click()
        for summary in page.locator("summary").all():
            summary.click()
        page.locator("#problem").evaluate("problem => { problem.textContent = 'Something went wrong.' }")
        assert_accessible(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "no sideways scrolling"
        moves = page.evaluate("getComputedStyle(document.querySelector('.needle')).transitionDuration")
        assert moves == ("0s" if "reduced_motion" in look else "0.15s")


def assert_accessible(page: Page) -> None:
    """No finding of axe-core at all, serious or not."""
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


@needs_chromium
def test_a_policy_without_overrides_leaves_alpha_to_the_tenant(browser: Browser, dispatcher: str) -> None:
    with (
        playgrounds.playground("--dispatcher", dispatcher, "--tenant", "strict") as address,
        open_page(browser, address) as page,
    ):
        expect(page.locator("#decision")).to_contain_text("would answer")
        expect(page.get_by_label("Cost threshold α")).to_be_disabled()
        expect(page.locator("#compare-help")).to_contain_text("allow_alpha_override")
        page.get_by_role("button", name="Ask both models").click(force=True)
        page.get_by_role("button", name="Answer", exact=True).click()
        expect(page.locator(".pane .text")).to_contain_text("says:")


@needs_chromium
def test_a_cascade_shows_its_stages_and_an_answer_that_is_taken_back(browser: Browser, dispatcher: str) -> None:
    with (
        playgrounds.playground("--dispatcher", dispatcher, "--tenant", "cascade") as address,
        open_page(browser, address) as page,
    ):
        expect(page.locator("#decision")).to_contain_text(f"{WEAK} (weak) would answer: it is asked first")
        page.get_by_label("Your prompt").fill("Who of you knows?")
        page.get_by_role("button", name="Answer", exact=True).click()
        pane = page.locator(".pane")
        expect(pane.locator(".text")).to_have_text(f"{STRONG} says: Who of you knows?")
        expect(pane).to_contain_text(f"{WEAK} (weak) answered first, and that was taken back.")
        stages = pane.get_by_role("list").locator("li")
        expect(stages).to_have_count(2)
        expect(stages.nth(0)).to_have_text(
            re.compile(rf"{WEAK}: not accepted \(acceptance 0\.[0-9]{{3}}, threshold 1\.000\), \$0\.000017")
        )
        expect(stages.nth(1)).to_have_text(f"{STRONG}: not checked, $0.000440; this is its answer")
        assert_accessible(page)


@needs_chromium
def test_a_budget_without_room_is_told_in_a_sentence(browser: Browser, dispatcher: str) -> None:
    with (
        playgrounds.playground("--dispatcher", dispatcher, "--tenant", "poor") as address,
        open_page(browser, address) as page,
    ):
        expect(page.locator("#decision[data-tier]")).to_be_visible()
        page.get_by_role("button", name="Answer", exact=True).click()
        expect(page.get_by_role("alert")).to_contain_text("The budget has no room for this: the limit of $0.000001")
        expect(page.locator(".pane").get_by_role("heading")).to_have_text("No answer")


@needs_chromium
@pytest.mark.parametrize(
    ("tenant", "sentence"),
    [("default", "cannot be reached. Check that it runs there"), ("nobody", "does not know this tenant")],
)
def test_a_dispatcher_that_does_not_serve_us_is_told_in_a_sentence(
    browser: Browser, dispatcher: str, tenant: str, sentence: str
) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as closed,
        playgrounds.playground(
            "--dispatcher",
            dispatcher if tenant == "nobody" else f"127.0.0.1:{closed.getsockname()[1]}",
            "--tenant",
            tenant,
        ) as address,
    ):
        closed.close()
        with open_page(browser, address) as page:
            expect(page.get_by_role("alert")).to_contain_text(sentence)


@pytest.mark.parametrize(
    ("call", "status", "problem"),
    [
        (lambda http: http.get("/", headers={"host": "elsewhere.example"}), 400, "Invalid host header"),
        (lambda http: http.post("/api/answer", content="{}"), 400, "Send JSON, with that content type."),
        (lambda http: http.post("/api/route", json=[1]), 400, "Send a JSON object."),
        (lambda http: http.post("/api/route", json={"prompt": " "}), 400, "Write a prompt first."),
        (lambda http: http.post("/api/route", json={"prompt": "a", "alpha": 2}), 400, "alpha: write a number"),
        (lambda http: http.post("/api/route", json={"prompt": "a" * 300_000}), 400, "The prompt is too long"),
        (
            lambda http: http.post("/api/answer", json={"prompt": "a", "label": "a", "max_tokens": 0}),
            400,
            "Longest answer:",
        ),
        (lambda http: http.post("/api/vote", json={"request_id": "a", "preference": "x"}), 400, "preference: write"),
        (lambda http: http.post("/api/explanation", json={"request_id": "a"}), 502, "has no such request"),
    ],
)
def test_what_the_page_would_not_send_is_refused(
    url: str, call: Callable[[httpx2.Client], httpx2.Response], status: int, problem: str
) -> None:
    with httpx2.Client(base_url=url, timeout=20) as http:
        response = call(http)
    assert (response.status_code, problem in response.text) == (status, True), response.text


def test_make_playground_needs_no_key_answers_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    process = playgrounds.start()
    try:
        address = playgrounds.wait_for_url(process)
        children = psutil.Process(process.pid).children()
        assert len(children) == 3, "scorer, dispatcher, local upstream"
        body = {"prompt": "What is the capital of Australia?", "alpha": 1, "max_tokens": 8, "label": "answer"}
        with httpx2.Client(base_url=address, timeout=60) as http:
            lines = http.post("/api/answer", json=body).text.splitlines()
            assert '"model": "example-weak"' in lines[0]
            assert '"finished"' in lines[-1]
            assert "example prices" in http.get("/api/about").json()["notice"]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.stdout is not None
        assert "Traceback" not in process.stdout.read()
        assert not [child for child in children if child.is_running()]
    finally:
        playgrounds.stop(process)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("--listen", "8501"), "error: '8501' is not an address"),
        (("--listen", "127.0.0.1:{taken}"), "error: cannot listen on 127.0.0.1:{taken}: Address already in use"),
        (("--dispatcher", "127.0.0.1:1", "--ca", "/nowhere.pem"), "error: --ca /nowhere.pem: No such file"),
    ],
)
def test_arguments_that_cannot_be_used_end_it_with_a_line(arguments: tuple[str, ...], error: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        taken = held.getsockname()[1]
        process = playgrounds.start(*(each.format(taken=taken) for each in arguments))
        try:
            output, _ = process.communicate(timeout=30)
        finally:
            playgrounds.stop(process)
    assert process.returncode != 0
    assert error.format(taken=taken) in output
