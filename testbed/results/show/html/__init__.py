"""`report.html`: one file that opens offline.

figures are `counted` from tables, drawings are SVG made here, `page` puts them into the template.
"""
