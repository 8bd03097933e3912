#!/usr/bin/env python3
"""Holds every metric that a dashboard or an alert names against the code's own list, and can run each query.

usage: check.py [--prometheus URL]

Without arguments: each `hiresmed_*` name in infra/grafana/dashboards and infra/prometheus/rules.yml has to be defined in
shared/telemetry/src/metrics.rs, with the labels that the query uses, and every defined metric has to be on a dashboard. With
--prometheus, every query is also sent to that server, which has to accept it; how many series each gives is printed.
"""
import argparse
import json
import pathlib
import re
import sys
import urllib.error
import urllib.parse
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
METRICS = ROOT / "shared" / "telemetry" / "src" / "metrics.rs"
RULES = ROOT / "infra" / "prometheus" / "rules.yml"
DASHBOARDS = ROOT / "infra" / "grafana" / "dashboards"

# What others export: Prometheus itself, the blackbox exporter, RabbitMQ.
FOREIGN = {"up", "probe_success", "rabbitmq_detailed_queue_messages"}
# Labels that Prometheus adds, and its own for a histogram's buckets.
ADDED = {"job", "instance", "le"}
FUNCTIONS = {
    "abs", "absent", "avg", "by", "changes", "clamp_max", "clamp_min", "count", "deriv", "histogram_quantile", "increase", "label_values",
    "max", "min", "on", "rate", "sum", "time", "topk", "vector", "without", "and", "or", "unless", "ignoring", "group_left", "group_right",
    "bool", "offset",
}
# What Grafana puts in before it asks: here the shortest that its settings allow.
VARIABLES = {"$__rate_interval": "1m", "$__interval": "15s", "$__range": "3h", "$kind": ".*", "$site": ".*"}


def definitions():
    """The metrics of the code: name to (labels, whether it is a histogram)."""
    text = METRICS.read_text()
    found = re.findall(r'=\s*(counter|gauge|histogram)\(\s*"(\w+)",\s*"[^"]*",\s*&\[([^\]]*)\]', text)
    if not found or len(found) != len(re.findall(r": Definition\s*=", text)):
        sys.exit(f"check.py: {METRICS} is written in a way that this program cannot read; change its pattern")
    return {name: (set(re.findall(r'"(\w+)"', labels)), kind == "histogram") for kind, name, labels in found}


def queries():
    """Every query: (where it is, its text)."""
    for path in sorted(DASHBOARDS.glob("*.json")):
        board = json.loads(path.read_text())
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                yield f"{path.name}: {panel['title']} {target['refId']}", target["expr"]
        for variable in board["templating"]["list"]:
            yield f"{path.name}: variable {variable['name']}", variable["query"]["query"]
    for rule in re.split(r"^ *- alert: ", RULES.read_text(), flags=re.M)[1:]:
        # The value of `expr` stands behind it, or in deeper lines below a `|`.
        expression = re.search(r"^( *)expr: *(.*)\n((?:\1 +.*\n)*)", rule, flags=re.M)
        if expression is None:
            sys.exit(f"check.py: {RULES}: no expression was found for {rule.split()[0]}")
        yield f"{RULES.name}: {rule.split()[0]}", " ".join(f"{expression[2].strip('|')} {expression[3]}".split())


def metric_of(name, known):
    """The defined metric that a series belongs to: itself, or the histogram that it is a part of."""
    if name in known and not known[name][1]:
        return name
    whole = re.sub(r"_(bucket|sum|count)$", "", name)
    return whole if whole != name and known.get(whole, (None, False))[1] else None


def faults_of(query, known):
    """What is wrong with a query's names, and the defined metrics that it uses."""
    faults, used = [], set()
    variable = re.fullmatch(r"label_values\((\w+), (\w+)\)", query)
    if variable:
        name, label = variable.groups()
        query = f"sum by ({label}) ({name})"
    bare = re.sub(r'"[^"]*"', '""', query)
    labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", bare))
    for group in re.findall(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)", bare):
        labels |= {label.strip() for label in group.split(",") if label.strip()}
    # What is left after selectors, label lists, ranges and numbers are taken away: metrics and functions.
    rest = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", bare)
    rest = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", rest)
    allowed, foreign = set(ADDED), False
    for name in set(re.findall(r"[a-zA-Z_]\w*", rest)) - FUNCTIONS:
        if name in FOREIGN:
            foreign = True
        elif (metric := metric_of(name, known)) is not None:
            used.add(metric)
            allowed |= known[metric][0]
        else:
            faults.append(f"`{name}` is no metric of {METRICS.name} (a histogram is asked by its _bucket, _sum or _count)")
    if not foreign:
        faults += [f"no metric of this query has the label `{label}`" for label in sorted(labels - allowed)]
    return faults, used


def ask(server, query):
    """The number of series that Prometheus gives."""
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    variable = re.fullmatch(r"label_values\((\w+), (\w+)\)", query)
    query = f"group by ({variable[2]}) ({variable[1]})" if variable else query
    url = f"{server.rstrip('/')}/api/v1/query?" + urllib.parse.urlencode({"query": query})
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return len(json.load(answer)["data"]["result"])
    except urllib.error.HTTPError as error:
        raise ValueError(json.load(error).get("error", error.reason)) from error
    except OSError as error:
        sys.exit(f"check.py: {server} does not answer: {error}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prometheus", metavar="URL", help="a running server, as http://127.0.0.1:9090")
    arguments = parser.parse_args()
    known, every, drawn, faults = definitions(), list(queries()), set(), []
    for place, query in every:
        found, used = faults_of(query, known)
        faults += [f"{place}: {fault}" for fault in found]
        if not place.startswith(RULES.name):
            drawn |= used
        if arguments.prometheus:
            try:
                print(f"{ask(arguments.prometheus, query):4} series  {place}")
            except ValueError as error:
                faults.append(f"{place}: {error}")
    faults += [f"{name} is on no dashboard" for name in sorted(known.keys() - drawn)]
    for fault in faults:
        print(f"check.py: {fault}", file=sys.stderr)
    if faults:
        sys.exit(1)
    print(f"dashboards and alerts: {len(every)} queries, {len(known)} metrics, all as defined")


if __name__ == "__main__":
    main()
