"""The console: pages that show what the server does and let a person steer it, at `/` of the admin's HTTP interface.

Jinja2 draws the pages on the server, htmx follows what changes, uPlot draws the charts; all of it comes with the
package and needs neither a build nor the internet. The console reads `orchestrator.views` and changes things by the
actions of `orchestrator.api`, within the process.

| module | what it does |
|---|---|
| `assets` | style, scripts and icon, from memory |
| `rendering` | templates; how numbers and times are shown |
| `inputs` | fields of forms, numbers of both kinds |
| `live` | what follows by itself: one renderer for all who look at the same thing |
"""
