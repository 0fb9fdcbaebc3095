"""The files for Prometheus and Grafana, read by those whose they are: promtool, a PromQL parser, Grafana's SDK."""

import itertools
import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from toolkit import registry, releases
from toolkit.errors import UsageError
from toolkit.monitoring import Exported, ScrapeTarget, known, made, parse, rules, seen, write
from toolkit.monitoring.exported import selectors

ROOM = Path(rules.__file__).parent
FAMILIES = registry.toml_document(ROOM / "families.toml")
PANELS = registry.toml_document(ROOM / "panels.toml")["row"]
TARGETS = (
    ScrapeTarget(server="a", job="triton", address="127.0.0.1:8002"),
    ScrapeTarget(server="b", job="triton", address="127.0.0.1:9002"),
    ScrapeTarget(server="a", job="trtk-gateway", address="127.0.0.1:9000"),
)


def all_expressions():
    recordings, alerts = rules.everything()
    queries = [query["expr"] for row in PANELS for panel in row["panel"] for query in panel["query"]]
    return [one.expr for one in (*recordings, *alerts)] + [
        query.replace("$server", ".*").replace("$__rate_interval", "1m") for query in queries
    ]


def everything_there_is() -> Exported:
    """Return what no single server exports: every family, flags set."""
    names = {selector.name: frozenset() for text in all_expressions() for selector in selectors(text)}
    for group in FAMILIES["groups"].values():
        names |= {name: frozenset(family["values"]) for name, family in group.items() if "values" in family}
    return Exported(series={name: values for name, values in names.items() if not name.startswith("trtk:")})


def promtool(*arguments, cwd):
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed: Debian has it in the package prometheus")
    done = subprocess.run(["promtool", *arguments], cwd=cwd, check=False, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def vectors(expression: str):
    """The (name, matchers) of every metric in an expression, by a parser of PromQL that is not ours."""
    import promql_parser

    def walk(node):
        if isinstance(node, promql_parser.VectorSelector):
            yield node.name, {(one.name, one.value) for one in node.matchers.matchers}
        for attribute in ("expr", "lhs", "rhs", "args", "vector_selector", "vs"):
            child = getattr(node, attribute, None)
            for one in child if isinstance(child, list) else [child]:
                if one is not None:
                    yield from walk(one)

    return list(walk(promql_parser.parse(expression)))


@pytest.mark.parametrize("expression", all_expressions())
def test_the_series_that_an_expression_reads_are_found_as_a_promql_parser_finds_them(expression):
    ours = [(one.name, {(label, value) for label, _, value in one.matchers}) for one in selectors(expression)]
    theirs = vectors(expression)
    assert sorted(ours, key=str) == sorted(theirs, key=str)
    assert theirs


def test_every_metric_that_is_read_is_a_family_that_is_known():
    names = set(everything_there_is().series)
    described = {
        f"{name}{suffix}"
        for group in FAMILIES["groups"].values()
        for name, family in group.items()
        for suffix in (("_bucket", "_sum", "_count") if family["kind"] == "histogram" else ("",))
    }
    assert names - {"up"} <= described


@pytest.mark.parametrize("kind", ["cpu", "engine", "llmapi", "everything"])
def test_promtool_takes_the_files_and_every_alert_fires_and_is_quiet_as_its_test_says(kind, tmp_path):
    exported = everything_there_is() if kind == "everything" else known([kind], "26.07")
    written = made(TARGETS, exported)
    write(written, tmp_path)
    code, said = promtool("check", "config", "prometheus.yml", cwd=tmp_path)
    assert (code, "SUCCESS: prometheus.yml is valid" in said) == (0, True), said
    code, said = promtool("check", "rules", "--lint-fatal", "alerts.yml", cwd=tmp_path)
    assert code == 0, said
    code, said = promtool("test", "rules", "alerts_test.yml", cwd=tmp_path)
    assert code == 0, said
    document = yaml.safe_load((tmp_path / "alerts_test.yml").read_text())
    alerts = yaml.safe_load((tmp_path / "alerts.yml").read_text())["groups"][-1]["rules"]
    assert len(document["tests"]) == 2 * len(alerts) == 2 * written.alerts


def test_a_rule_that_is_wrong_fails_its_test(tmp_path):
    write(made(TARGETS, known(["cpu"], "26.07")), tmp_path)
    path = tmp_path / "alerts.yml"
    path.write_text(path.read_text().replace("trtk:failure_share:rate5m > 0.05", "trtk:failure_share:rate5m > 0.5"))
    code, said = promtool("test", "rules", "alerts_test.yml", cwd=tmp_path)
    assert (code, "TrtkFailures" in said) == (1, True)


def test_each_job_is_scraped_where_it_is_with_the_servers_name():
    document = yaml.safe_load(made(TARGETS, everything_there_is()).texts["prometheus.yml"])
    assert document["rule_files"] == ["alerts.yml"]
    assert document["scrape_configs"] == [
        {
            "job_name": "triton",
            "metrics_path": "/metrics",
            "static_configs": [
                {"targets": ["127.0.0.1:8002"], "labels": {"server": "a"}},
                {"targets": ["127.0.0.1:9002"], "labels": {"server": "b"}},
            ],
        },
        {
            "job_name": "trtk-gateway",
            "metrics_path": "/metrics",
            "static_configs": [{"targets": ["127.0.0.1:9000"], "labels": {"server": "a"}}],
        },
    ]


def test_a_gateway_with_keys_is_scraped_with_one_from_a_file(tmp_path):
    keyed = ScrapeTarget(server="c", job="trtk-gateway", address="127.0.0.1:9100", needs_key=True)
    write(made((*TARGETS, keyed), everything_there_is()), tmp_path)
    *_, scrape = yaml.safe_load((tmp_path / "prometheus.yml").read_text())["scrape_configs"]
    assert scrape == {
        "job_name": "trtk-gateway-with-key",
        "metrics_path": "/metrics",
        "authorization": {"credentials_file": "api-key"},
        "static_configs": [{"targets": ["127.0.0.1:9100"], "labels": {"server": "c", "job": "trtk-gateway"}}],
    }
    assert "chmod 600 api-key" in (tmp_path / "README.md").read_text()
    (tmp_path / "api-key").write_text("trtk-1")
    assert promtool("check", "config", "prometheus.yml", cwd=tmp_path)[0] == 0


def test_what_nobody_exports_is_left_out_and_listed():
    scrape = parse(
        "# TYPE nv_inference_request_success counter\n"
        'nv_inference_request_success{model="m"} 1\n'
        "# TYPE nv_trt_llm_request_metrics gauge\n"
        'nv_trt_llm_request_metrics{model="m",request_type="active"} 1\n'
    )
    written = made(TARGETS[:1], seen([scrape]))
    alerts = yaml.safe_load(written.texts["alerts.yml"])["groups"]
    assert [rule["alert"] for rule in alerts[-1]["rules"]] == ["TrtkServerDown"]
    left_out = {one.what: one.missing for one in written.left_out}
    # The family is there, the value of its label is not: no expression may ask for it.
    assert left_out["alert TrtkNoSuccess"] == ('nv_trt_llm_request_metrics{request_type="waiting"}',)
    assert left_out["alert TrtkFailures"] == ('nv_inference_request_failure{reason!="CANCELED"}',)
    assert left_out["panel GPU temperature"] == ("DCGM_FI_DEV_GPU_TEMP",)
    assert "- panel GPU temperature: DCGM_FI_DEV_GPU_TEMP\n" in written.texts["README.md"]
    assert "DCGM" not in written.texts["dashboard.json"]


def test_a_histogram_that_needs_a_flag_is_used_only_where_it_was_seen():
    assert not known(["engine"], "26.07").has(selectors("nv_inference_first_response_histogram_ms_bucket")[0])
    scrape = parse(
        "# TYPE nv_inference_first_response_histogram_ms histogram\n"
        'nv_inference_first_response_histogram_ms_bucket{model="m",le="+Inf"} 1\n'
    )
    written = made(TARGETS[:1], seen([scrape]))
    assert "TrtkSlowFirstToken" in written.texts["alerts.yml"]


def dashboard():
    return json.loads(made(TARGETS, everything_there_is()).texts["dashboard.json"])


def test_grafanas_own_sdk_reads_the_dashboard_and_gives_it_back():
    pytest.importorskip("grafana_foundation_sdk", reason="Grafana's SDK needs Python 3.11")
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    ours = dashboard()
    theirs = json.loads(json.dumps(Dashboard.from_json(ours), cls=JSONEncoder))

    def lost(before, after, where=""):
        if isinstance(before, dict):
            for key, value in before.items():
                yield from lost(value, after.get(key) if isinstance(after, dict) else None, f"{where}/{key}")
        elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
            for index, (one, other) in enumerate(zip(before, after, strict=True)):
                yield from lost(one, other, f"{where}/{index}")
        elif before != after and before not in (None, "", [], {}):
            yield where

    assert list(lost(ours, theirs)) == []


def test_a_dashboards_panels_have_units_and_words_and_do_not_overlap():
    document = dashboard()
    panels = document["panels"]
    assert [panel["id"] for panel in panels] == list(range(1, len(panels) + 1))
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    drawn = [panel for panel in panels if panel["type"] != "row"]
    assert len(drawn) == sum(len(row["panel"]) for row in PANELS)
    for panel in drawn:
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
        assert all('server=~"$server"' in target["expr"] for target in panel["targets"])
    assert [one["name"] for one in document["templating"]["list"]] == ["datasource", "server"]


def test_the_same_servers_give_the_same_bytes(tmp_path):
    first, second = (made(TARGETS, everything_there_is()) for _ in range(2))
    assert first == second
    write(first, tmp_path)
    write(second, tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict(first.texts)


def test_a_file_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "prometheus.yml").write_text("global: {}\n")
    with pytest.raises(UsageError, match=r"prometheus\.yml is there and was not made by `trtk monitoring`\.$"):
        write(made(TARGETS, known(["cpu"], "26.07")), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["prometheus.yml"]


def test_what_a_flow_exports_is_known_for_every_release():
    for release, kind in itertools.product(releases.catalogue(), ("cpu", "engine", "llmapi")):
        assert made(TARGETS[:1], known([kind], release.name)).panels >= 16
