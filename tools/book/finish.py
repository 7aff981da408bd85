"What is done to the rendered pages: formulas, first uses of terms, numbers that stay together"
import json
import re
from html import unescape
from html.parser import HTMLParser

from latex2mathml.converter import convert

closed = {'a','code','pre','script','style','summary','svg','math','button','h1','h2','h3','h4','h5','h6','title'}
empty = {'img','br','hr','input','meta','link','wbr','col','source'}

def each_text(html, change):
    "`html` with `change(text, tags)` in place of every piece of running text; `tags` are the elements around it"
    out, tags = [], []
    for i,part in enumerate(re.split(r'(<[^>]*>)', html)):
        if i%2:
            m = re.match(r'<(/?)([\w-]+)', part)
            if m and m[1]: close(tags, m[2])
            elif m and m[2] not in empty and not part.endswith('/>'): tags.append(m[2])
        elif part.strip() and not closed & set(tags): part = change(part, tags)
        out.append(part)
    return ''.join(out)

def close(tags, name):
    if name in tags:
        while tags.pop()!=name: pass

def keep_together(text, tags):
    "An interval such as [0.1, 0.4] is not broken inside its brackets"
    return re.sub(r'\[[−+-]?\d[\d.,\s%−+-]*[\])]', r'<span class="together">\g<0></span>', text)

def cells_in_shape(html):
    """Short cells of tables, such as a date, are not broken; a cell that holds a path or another long word may be. The
    name of an index, which says what a table shows, takes the room of the empty cells beside it"""
    def change(m):
        text = unescape(re.sub('<[^>]*>', '', m[3]))
        kind = 'together' if len(text)<=(24 if m[1]=='td' else 12) and '[' not in text else 'long' if longest_word(text)>30 else ''
        return f'<{m[1]}{m[2]} class="{kind}">{m[3]}</' if kind and 'class=' not in m[2] else m[0]
    def wide(m): return f'<th colspan="{1+m[2].count("<th")}">{m[1]}</th>'
    html = re.sub(r'<th>([^<]{25,})</th>((?:\s*<th></th>)+)(?=\s*</tr>)', wide, html)
    return re.sub(r'<(td|th)\b([^>]*)>((?:(?!</?t[dh]\b).)*)</', change, html, flags=re.S)

def longest_word(text): return max(map(len, text.split()), default=0)

def in_columns(html):
    """What cells print as a table keeps its columns and scrolls; sentences are wrapped, in a table too. Lines of code that
    are longer than those that fit are wrapped, where all others keep their shape"""
    def change(m):
        lines = [o for o in unescape(re.sub('<[^>]*>', '', m[1])).splitlines() if o.strip()]
        longest = max(map(len, lines), default=0)
        if 'sourceCode' in m[0].partition('>')[0]: return m[0].replace('<pre', '<pre data-long', 1) if longest>120 else m[0]
        table = 2<len(lines) and longest<=200 and sum(len(re.findall(r'\S {2,}(?=\S)', o))>1 for o in lines)>len(lines)/2
        return m[0].replace('<pre', '<pre data-columns', 1) if table else m[0]
    return re.sub(r'<pre\b[^>]*>((?:(?!</pre>).)*)</pre>', change, html, flags=re.S)

def terms(page):
    "The terms of the glossary: the anchor of each, and the words that lead there (its heading, or what `forms` says)"
    for m in re.finditer(r'^##+ (.+?) \{#([\w-]+)(?: forms="([^"]*)")?\}', page, re.M):
        yield m[2], m[3].split('|') if m[3] else [m[1]]

def link_terms(known, seen=None):
    "A change for `each_text` that links the first use of each term, in paragraphs and lists, to the glossary"
    left = {o:(anchor, forms) for anchor,forms in known for o in forms}
    def change(text, tags):
        if not left or not {'p','li'} & set(tags): return text
        pattern = '|'.join(re.escape(o) for o in sorted(left, key=len, reverse=True))
        def link(m):
            if m[0] not in left: return m[0]
            anchor, forms = left[m[0]]
            for o in forms: left.pop(o, None)
            return f'<a class="term" href="glossary.html#{anchor}">{m[0]}</a>'
        return re.sub(rf'(?<![\w@-])(?:{pattern})(?![\w-])', link, text)
    return change

def formula(m):
    if m[1]=='inline': return convert(unescape(m[2]), display='inline')
    return f'<span class="formula">{convert(unescape(m[2]), display="block")}</span>'

def in_main(html, change):
    "`html` with `change` done to what stands in its <main>"
    return re.sub(r'(<main\b[^>]*>)(.*)(</main>)', lambda m: m[1]+change(m[2])+m[3], html, flags=re.S)

def symbol_links(page, ids):
    "A change of links to symbols: to the one of the right case; none to what the site does not show"
    def change(m):
        to = ids.get(page.parent/m[2] if m[2] else page, ())
        if m[4] in to: return f'<a href="{m[2]}#{m[4]}"><code>{m[4]}</code></a>'
        return f'<code>{m[4]}</code>' if m[4].lower().endswith(m[3]) and m[3] not in to else m[0]
    return lambda html: re.sub(r'(<a href="([^"#:]*)#([\w.]+)">)<code>([^<]+)</code></a>', change, html)

def plain(html):
    "Formulas as MathML, which needs no network; pictures that load when they come into sight"
    html = re.sub(r'<span class="math (inline|display)">\\[(\[](.*?)\\[)\]]</span>', formula, html, flags=re.S)
    html = re.sub(r'<(?:link|script)[^>]*katex[^>]*>(?:</script>)?', '', html)
    return re.sub(r'<img (?![^>]*loading=)', '<img loading="lazy" ', html)

def fewer_spans(html):
    "Neighbours of one colour in code, such as a string and its quotes, are one: a tenth of a page of code"
    html = re.sub(r'<span class="op">([^<]*)</span>', r'\1', html)          # operators in the colour of the text
    pair = re.compile(r'<span class="(\w\w)">([^<]*)</span><span class="\1">')
    while (shorter := pair.sub(r'<span class="\1">\2', html))!=html: html = shorter
    return html

def finish(out, known, chapters):
    "Change the pages below `out`; the terms of the glossary are linked on the pages that `chapters` names"
    pages = {f:f.read_text(encoding='utf-8') for f in out.rglob('*.html')}
    ids = {f:set(re.findall(r'\bid="([^"]+)"', t)) for f,t in pages.items()}
    for f,t in pages.items():
        new = fewer_spans(plain(symbol_links(f, ids)(t)))
        new = in_main(new, lambda s: in_columns(cells_in_shape(each_text(s, keep_together))))
        if f.stem in chapters: new = in_main(new, lambda s: each_text(s, link_terms(known)))
        if new!=t: f.write_text(new, encoding='utf-8')
    for f in out.rglob('*.css'):            # a theme asks for fonts from elsewhere
        t = f.read_text(encoding='utf-8')
        new = re.sub(r'@import url\([^)]*\);?', '', t)
        if new!=t: f.write_text(new, encoding='utf-8')

class Words(HTMLParser):
    "The words of a page by section: [anchor, heading, text]; code and what it printed are left out"
    def __init__(self, html):
        super().__init__()
        self.sections, self.tags = [['', '', '']], []
        self.feed(re.search(r'<main\b.*</main>', html, re.S)[0])

    def handle_starttag(self, tag, attrs):
        if tag in empty: return
        a = dict(attrs)
        classes = set((a.get('class') or '').split())
        hidden = tag in ('details','script','style','nav','math') or bool(classes & {'cell','source-link','chapter-links'})
        self.tags.append((tag, hidden))
        if 'data-anchor-id' in a: self.sections.append([a['data-anchor-id'], '', ''])

    def handle_endtag(self, tag):
        while self.tags and self.tags.pop()[0]!=tag: pass
        if tag in ('td','th','p','li','pre','div'): self.sections[-1][2] += ' '

    def handle_data(self, data):
        if any(hidden for _,hidden in self.tags): return
        heading = any(re.fullmatch('h[2-6]', tag) for tag,_ in self.tags)
        self.sections[-1][1 if heading else 2] += data

def search_index(out):
    "Write what the search reads: as JSON, and as a script for pages that are read from disk"
    found = []
    for f in sorted(set(out.glob('*.html'))-{out/'api.html', out/'gallery.html'}):     # which repeat the chapters
        html = f.read_text(encoding='utf-8')
        title = unescape(re.search(r'<title>(.*?)</title>', html, re.S)[1]).split(' – ')[0]
        for anchor,*words in Words(html).sections:
            to = f.name+(f'#{anchor}' if anchor else '')
            heading, text = (' '.join(o.split()) for o in words)
            found.append(dict(objectID=to, href=to, title=title, section=heading, text=text))
    text = json.dumps(found, ensure_ascii=False)
    (out/'search.json').write_text(text, encoding='utf-8')
    (out/'search.js').write_text(f'window.searchIndex = {text}', encoding='utf-8')
