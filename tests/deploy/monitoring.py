"""Judges deploy/monitoring: the alert rules by promtool and their own tests, the dashboard's queries by the same parser."""

import json
import tempfile

import yaml

import rendered

FOLDER = rendered.DEPLOY / "monitoring"
ALERTS = FOLDER / "alerts.yaml"
DASHBOARD = FOLDER / "dashboard.json"
TESTS = rendered.ROOT / "tests" / "deploy" / "alerts_test.yaml"


def as_object():
    """The rules as the Prometheus operator takes them."""
    rules = yaml.load(ALERTS.read_text(), rendered.StrictLoader)
    return {"apiVersion": "monitoring.coreos.com/v1", "kind": "PrometheusRule", "metadata": {"name": "sanpath"}, "spec": rules}


def checks(promtool):
    yield "alerts: promtool check rules", lambda: rendered.run(promtool, "check", "rules", "--lint-fatal", ALERTS)
    yield "alerts: promtool test rules", lambda: rendered.run(promtool, "test", "rules", TESTS)
    yield "alerts: each is seen to fire and to be silent", every_alert_is_tested
    yield "alerts: each leads to a chapter that is there", every_alert_leads_somewhere
    yield "dashboard: its queries are well formed", lambda: queries_are_well_formed(promtool)


def every_alert_is_tested():
    rules = {rule["alert"] for group in as_object()["spec"]["groups"] for rule in group["rules"]}
    fires, silent = set(), set()
    for test in yaml.safe_load(TESTS.read_text())["tests"]:
        for case in test["alert_rule_test"]:
            (fires if case["exp_alerts"] else silent).add(case["alertname"])
    assert fires == rules, f"not seen to fire, or no rule: {sorted(fires ^ rules)}"
    assert silent == rules, f"not seen to be silent, or no rule: {sorted(silent ^ rules)}"


def every_alert_leads_somewhere():
    for group in as_object()["spec"]["groups"]:
        for rule in group["rules"]:
            word = rule["annotations"]["description"].split()[-1]
            path, _, chapter = word.partition("#")
            page = (rendered.ROOT / path).read_text()
            titles = [line.lstrip("# ").lower().replace(" ", "-") for line in page.splitlines() if line.startswith("#")]
            assert not chapter or chapter in titles, f"{rule['alert']}: {path} has no {chapter}"


def queries():
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def queries_are_well_formed(promtool):
    """As rules that record, which promtool parses; Grafana's variables stand for what they become."""
    rules = []
    for index, (_, query) in enumerate(queries()):
        for variable, value in (("$__rate_interval", "5m"), ("$partition", ".*"), ("$node", ".*")):
            query = query.replace(variable, value)
        assert "$" not in query, query
        rules.append({"record": f"panel_{index}", "expr": query})
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}, file)
        file.flush()
        rendered.run(promtool, "check", "rules", "--lint=none", file.name)
