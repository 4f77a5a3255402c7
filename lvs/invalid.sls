# A wrong pillar changes nothing: this takes the place of every other state of the formula, and says what is wrong.
{%- from "lvs/map.jinja" import view with context %}
{%- for problem in view.problems %}

lvs-pillar-problem-{{ loop.index }}:
  test.fail_without_changes:
    # In test mode Salt says of its own what would be, and of ours the name alone.
    - name: {{ problem | json }}
    - comment: {{ problem | json }}
{%- endfor %}
