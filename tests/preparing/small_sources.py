"""Small sources, and the recipe run on them."""

import json

from pipelines.commands import prepare_data
from pipelines.configs.prepare_data import PrepareDataConfig
from pipelines.core.config import resolve

TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system messages here') }}{% endif %}"
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<u> ' + m['content'] + ' ' }}{% else %}{{ '<b> ' }}"
    "{% generation %}{{ m['content'] + ' <end>' }}{% endgeneration %}{% if not loop.last %}{{ ' ' }}{% endif %}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<b> ' }}{% endif %}"
)


def alpaca(number):
    return {"instruction": f"question {number}", "input": "", "output": f"answer {number}"}


def write(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def config(source, out, **options):
    return resolve(PrepareDataConfig, flags={"source": str(source), "out": str(out), **options})


def prepare(source, out, **options):
    return prepare_data.run(config(source, out, **options))
