"""Holds the OpenAPI document against the standard: every error in a line, and exit code 1 where there is one."""
import json
import sys

from openapi_spec_validator import OpenAPIV31SpecValidator

with open(sys.argv[1]) as document:
    errors = list(OpenAPIV31SpecValidator(json.load(document)).iter_errors())
for error in errors:
    print("/".join(map(str, error.absolute_path)), error.message, file=sys.stderr)
sys.exit(1 if errors else 0)
