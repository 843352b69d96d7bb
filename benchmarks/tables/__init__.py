"""Tables of docs/, made from the JSON in results/.

pages  Markdown tables and the marked blocks of a page
results_tables, recipe_tables, paper_tables, speed_tables, field_tables  scripts that write the blocks of a page
"""
