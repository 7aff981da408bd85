"Pages to look things up in: the source of the modules, and an index of everything that they define"
import re
from html import escape
from itertools import groupby
from smalldocs.highlight import highlight

def source_page(py):
    "The page that shows the module `py`, for the `source` links; its line 7 is `#L-7`"
    rows = highlight(py.read_text(encoding='utf-8').rstrip('\n'), 'python').split('\n')
    html, open_span = [], ''
    for n,row in enumerate(rows, 1):        # a span that goes over several lines is closed and opened at each end
        row = open_span+row
        spans = re.findall(r'<span class="\w+">|</span>', row)
        open_span = ''
        for o in spans: open_span = o if o[1]!='/' else ''
        html.append(f'<span id="L-{n}" data-n="{n}">{row}{"</span>" if open_span else ""}</span>')
    body = '\n'.join(html)
    head = f'---\ntitle: "{py.parent.name}/{py.name}"\ntoc: false\nsearch: false\npage-navigation: false\n---\n'
    return f'{head}\n```{{=html}}\n<pre class="sourceCode module"><code class="sourceCode python">{body}</code></pre>\n```\n'

def inline(text): return re.sub(r'`([^`]+)`', r'<code>\1</code>', escape(' '.join(text.split())))

def entries(chapters):
    "(name, kind, first lines of its docstring, chapter) of all public definitions, by name"
    found = [(d['name'], d['kind'], d['doc'], c) for c in chapters for d in c.definitions]
    return sorted(found, key=lambda o: (o[0].lower(), o[0], o[3].number))

def api_index(chapters):
    "The Markdown of the index of definitions"
    rows = entries(chapters)
    parts = ['---\ntitle: "API index"\n'
             f'description: "{len(rows)} functions, classes and constants, each with the chapter that explains it"\ntoc-depth: 2\n---\n']
    for letter,group in groupby(rows, key=lambda o: o[0][0].upper()):
        cells = [f'<tr><td><a href="{c.page}.html#{escape(name.lower())}"><code>{escape(name)}</code></a></td>'
                 f'<td>{inline(doc) or kind}</td><td><a href="{c.page}.html">{escape(c.number)}</a></td></tr>' for name,kind,doc,c in group]
        parts.append(f'## {letter}\n\n```{{=html}}\n<table class="index">\n'+'\n'.join(cells)+'\n</table>\n```\n')
    return '\n'.join(parts)
