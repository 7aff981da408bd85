"""The house in figures: lines, cells, names, imports, what an install brings, and the way of one argument through the rooms.

    python tools/house.py                                       # everything (half a minute: modules are imported cold)
    python tools/house.py --only lines cells names              # some of it
    python tools/house.py --walk pretraining:pretrain_learner:store
    python tools/house.py --lower                               # write what fell into tests/ratchet.json"""
import argparse
import ast
import json
import os
import re
import statistics
import subprocess
import sys
from collections import defaultdict
from importlib import metadata
from itertools import pairwise, product
from pathlib import Path

root = Path(__file__).resolve().parents[1]
kept = 'tests/ratchet.json'
walks = ['results:finetune_report:store', 'pretraining:pretrain_learner:store']
cold = ['brainlm', 'brainlm.model', 'brainlm.cli']
heavy = ['torch', 'fastai', 'matplotlib', 'pandas', 'zarr', 'nibabel', 'nilearn', 'sklearn', 'statsmodels']

# Lines and cells

def modules(folder=root):
    "Every module of brainlm by name, as text"
    files = sorted((folder/'brainlm').glob('*.py'))
    return {f.stem:f.read_text(encoding='utf-8') for f in files if f.name!='_modidx.py'}

def is_code(line):
    "Does a line hold code, rather than nothing, a comment or the list of exported names?"
    bare = line.strip()
    return bool(bare) and not bare.startswith(('#', '__all__'))

def joined(text):
    "The numbers of the lines on which one statement follows another after a semicolon"
    nodes = ast.walk(ast.parse(text))
    bodies = [getattr(n, part, None) for n in nodes for part in ('body', 'orelse', 'finalbody')]
    bodies = [b for b in bodies if isinstance(b, list)]
    return {b.lineno for body in bodies for a,b in pairwise(body) if a.end_lineno==b.lineno}

def lines(folder=root):
    "How long the exported lines are"
    texts = modules(folder)
    code = [l for t in texts.values() for l in t.splitlines() if is_code(l)]
    statements = sum(isinstance(n, ast.stmt) for t in texts.values() for n in ast.walk(ast.parse(t)))
    return {'code lines': len(code),
            'characters': sum(len(l.strip()) for l in code),
            'statements': statements,
            'over 120 characters': sum(len(l)>120 for l in code),
            'over 140 characters': sum(len(l)>140 for l in code),
            'longest': max(map(len, code)),
            'joined statements': sum(len(joined(t)) for t in texts.values())}

def exported(folder=root):
    "The exported cells, as (notebook, id, source); cells that only import are among them"
    for nb in sorted((folder/'nbs').glob('[!_.]*.ipynb')):
        for c in json.loads(nb.read_text(encoding='utf-8'))['cells']:
            source = ''.join(c['source'])
            if c['cell_type']=='code' and re.search(r'^#\|\s*export', source, re.M): yield nb.name, c['id'], source

def length(source):
    "Lines of a cell without its directives and without blank lines"
    return sum(bool(l.strip()) and not l.startswith('#|') for l in source.splitlines())

def too_long(source):
    "Is this exported cell longer than 20 lines, with no `#| long: reason` that says why?"
    return length(source)>20 and not re.search(r'^#\|\s*long:\s*\S', source, re.M)

def cells(folder=root):
    "How long the exported cells are"
    found = [source for _,_,source in exported(folder)]
    sizes = [length(s) for s in found]
    return {'exported cells': len(sizes),
            'exported lines': sum(sizes),
            'median lines of a cell': statistics.median(sizes),
            'over 20 lines': sum(n>20 for n in sizes),
            'over 20 lines without a reason': sum(map(too_long, found))}

def ratchet(folder=root):
    "The counts that may only fall, for every room: tests/test_project.py compares them with tests/ratchet.json"
    cell = [source for _,_,source in exported(folder)]
    return {'lines over 120 characters': lines(folder)['over 120 characters'],
            'joined statements': lines(folder)['joined statements'],
            'exported cells over 20 lines without a reason': sum(map(too_long, cell)),
            **{k:n for k,n in names(folder).items() if k.startswith('private')}}

def by_room(folder=root):
    "The same three counts for each notebook, worst first, where there are any"
    rows = defaultdict(lambda: [0, 0, 0])
    for nb,_,source in exported(folder):
        rows[nb][0] += sum(len(l)>120 for l in source.splitlines() if is_code(l))
        rows[nb][1] += len(joined(source))
        rows[nb][2] += too_long(source)
    return {nb:r for nb,r in sorted(rows.items(), key=lambda o: -sum(o[1])) if any(r)}

# Names

def imported(tree):
    "What a module takes from other rooms: local name -> (room, name there); a room itself has no name there"
    res = {}
    for n in ast.walk(tree):
        if not isinstance(n, ast.ImportFrom): continue
        room = (n.module or '').removeprefix('brainlm').strip('.') if n.level or (n.module or '').startswith('brainlm') else None
        if room is None: continue
        for a in n.names: res[a.asname or a.name] = (room, a.name) if room else (a.name, '')
    return res

def defined(tree):
    "The functions and classes that a module defines at its top level, without methods"
    return [n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and not n.name.endswith('_')]

def names(folder=root):
    "Private names that leave their room, and those that mean something else in another room"
    trees = {room:ast.parse(t) for room,t in modules(folder).items()}
    leave = {(room, name) for t in trees.values() for room,name in imported(t).values() if re.match('_[^_]', name)}
    homes = defaultdict(set)
    for room,t in trees.items():
        for name in defined(t):
            if re.match('_[a-zA-Z]', name): homes[name].add(room)
    several = sorted(name for name,rooms in homes.items() if len(rooms)>1)
    return {'private names that another room imports': len(leave), 'these': ' '.join(sorted(f'{r}.{n}' for r,n in leave)),
            'private names with several meanings': len(several), 'namely': ' '.join(several)}

# Imports and installs

def cold_import(module, folder=root, n=3):
    "The least of `n` times in seconds that a new process takes to import a module, and which heavy packages it loads"
    env = {**os.environ, 'PYTHONPATH':str(folder)}
    code = f"""import sys, time
t = time.perf_counter()
import {module}
print(round(time.perf_counter()-t, 2), *[m for m in {heavy} if m in sys.modules])"""
    run = lambda: subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=env, check=True).stdout
    out = min((run().split() for _ in range(n)), key=lambda o: float(o[0]))
    return f"{out[0]} s, loads {', '.join(out[1:]) or 'none of the heavy packages'}"

def imports(folder=root): return {f'import {m}':cold_import(m, folder) for m in cold}

def closure(wanted):
    "The installed packages that these requirements bring, name -> distribution"
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name
    todo,done,found = [(r.name, x) for r in map(Requirement, wanted) for x in ['', *r.extras]],set(),{}
    while todo:
        name,extra = todo.pop()
        if (name, extra) in done: continue
        done.add((name, extra))
        try: dist = metadata.distribution(name)
        except metadata.PackageNotFoundError: continue
        found[canonicalize_name(name)] = dist
        for r in map(Requirement, dist.requires or []):
            if r.marker and not r.marker.evaluate({'extra':extra}): continue
            todo += [(r.name, x) for x in ['', *r.extras]]
    return found

def megabytes(dists):
    "What distributions take on the disk, in MB of 10^6 bytes"
    return sum(f.size or 0 for d in dists for f in d.files or [])/1e6

def requirements(folder=root):
    "The requirements in settings.ini: of the core (''), of each extra, of all of them, and what development adds to these"
    from configparser import ConfigParser
    ini = ConfigParser(delimiters=['='], interpolation=None)
    ini.read(folder/'settings.ini', encoding='utf-8')
    s = ini['DEFAULT']
    extras = {k.removesuffix('_requirements'):v.split() for k,v in s.items() if k.endswith('_requirements')}
    features = [o for k,v in extras.items() if k!='dev' for o in v]
    if features: extras['all'] = features
    return {'':s['requirements'].split(), **extras}

def install(folder=root):
    "Packages and MB of an install, as far as they are installed here"
    wanted = requirements(folder)
    core = closure(wanted.pop(''))
    res = {'core': f'{len(core)} packages, {megabytes(core.values()):.0f} MB'}
    for extra,lines in wanted.items():
        more = [d for n,d in closure(lines).items() if n not in core]
        res[f'extra {extra}'] = f'{len(more)} more packages, {megabytes(more):.0f} MB'
    return res

# The way of one argument

class Walk:
    """The functions that an argument is handed to, in the order in which the code is written.

    With `parts`, so is what is made from it: a name that is assigned from an expression with the argument in it stands for it from there on.
    Calls are followed by name, within a room and through imports; methods are not. Each function is walked through once."""
    def __init__(self, folder=root, parts=False):
        self.parts = parts
        self.trees = {room:ast.parse(t) for room,t in modules(folder).items()}
        self.links = {room:imported(t) for room,t in self.trees.items()}
        self.stops,self.seen = [],set()

    def find(self, room, call):
        "The room and the function or class that a call means, or None"
        f = call.func
        if isinstance(f, ast.Name): name = f.id
        elif isinstance(f, ast.Attribute) and isinstance(f.value, ast.Name) and self.links[room].get(f.value.id, ('', 1))[1]=='':
            room,name = self.links[room][f.value.id][0],f.attr
        else: return None
        if name in self.links[room]: room,name = self.links[room][name]
        for n in self.trees[room].body if room in self.trees else []:
            if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and n.name==name: return room,n
        return self.find(room, ast.Call(ast.Name(name), [], [])) if name in self.links.get(room, {}) else None

    def follow(self, room, node, given):
        "Enter a function with the parameters `given` (positions and names); then follow what it hands on"
        if isinstance(node, ast.ClassDef):
            inits = [o for o in node.body if isinstance(o, ast.FunctionDef) and o.name=='__init__']
            if not inits: return
            self.enter(room, f'{node.name}.__init__', inits[0], {g+1 if isinstance(g, int) else g for g in given})
        else: self.enter(room, node.name, node, given)

    def enter(self, room, name, fn, given):
        a = fn.args
        order = [o.arg for o in a.posonlyargs+a.args]
        mine = {order[g] if g<len(order) else a.vararg and a.vararg.arg for g in given if isinstance(g, int)}
        keys = set(order) | {o.arg for o in a.kwonlyargs}
        mine |= {g if g in keys else a.kwarg and a.kwarg.arg for g in given if isinstance(g, str)}
        if not (mine := mine-{None}): return
        self.stops.append((room, name, ' '.join(sorted(mine))))
        if (room, name) in self.seen: return
        self.seen.add((room, name))
        for stmt in fn.body: self.visit(room, stmt, mine)

    def visit(self, room, node, mine):
        "Walk through a statement: its calls first, then the names that it binds"
        for child in ast.iter_child_nodes(node):
            self.visit(room, child, mine)
        if isinstance(node, ast.Call) and (to := self.find(room, node)):
            given = {i for i,o in enumerate(node.args) if self.holds(o, mine)}
            given |= {k.arg for k in node.keywords if k.arg and self.holds(k.value, mine)}
            if given: self.follow(*to, given)
        value = getattr(node, 'value', None)
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign, ast.NamedExpr)) and value and self.holds(value, mine):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            mine |= {o.id for t in targets for o in ast.walk(t) if isinstance(o, ast.Name)}

    def holds(self, expr, mine):
        "Is an expression the argument, or, with `parts`, is it somewhere in there?"
        if not self.parts: return isinstance(expr, ast.Name) and expr.id in mine
        return any(isinstance(o, ast.Name) and o.id in mine for o in ast.walk(expr))

def walk(start, folder=root, parts=False):
    "The stops of `room:function:argument`: each time that it comes into another room, with the function that lets it in"
    room,name,arg = start.split(':')
    w = Walk(folder, parts)
    to = w.find(room, ast.Call(ast.Name(name), [], []))
    if to is None: raise ValueError(f'walk: found no function {name!r} in brainlm.{room}')
    w.follow(*to, {arg})
    return [s for before,s in pairwise([(None,)]+w.stops) if before[0]!=s[0]]

def floors(folder=root):
    "The place of each room in the order of the notebooks"
    res = {}
    for i,nb in enumerate(sorted((folder/'nbs').glob('[!_.]*.ipynb'))):
        if m := re.search(r'#\|\s*default_exp\s+(\w+)', nb.read_text(encoding='utf-8')): res[m[1]] = i
    return res

def trips(folder=root, starts=walks):
    "For each start: stops, rooms, how often the way climbs back up, and the way itself"
    res,floor = {},floors(folder)
    for start,parts in product(starts, [False, True]):
        stops = walk(start, folder, parts)
        ups = sum(floor.get(b[0], -1)>floor.get(a[0], -1) for a,b in pairwise(stops))
        way = ' > '.join(f'{room}.{name}' for room,name,_ in stops)
        what = start+(' and what is made from it' if parts else '')
        res[what] = f'{len(stops)} stops in {len({s[0] for s in stops})} rooms, {ups} times up: {way}'
    return res

parts = dict(lines=lines, cells=cells, names=names, rooms=by_room, imports=imports, install=install, walks=trips)

def lower(folder=root):
    "Write the counts that fell; those that rose stay as they were kept"
    file,now = folder/kept,ratchet(folder)
    before = json.loads(file.read_text(encoding='utf-8')) if file.exists() else now
    new = {k:min(v, before.get(k, v)) for k,v in now.items()}
    file.write_text(json.dumps(new, indent=1)+'\n', encoding='utf-8')
    return new

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--only', nargs='+', choices=list(parts), default=list(parts), metavar='PART', help=', '.join(parts))
    p.add_argument('--walk', metavar='ROOM:FUNCTION:ARGUMENT', help='the way of this argument, and nothing else')
    p.add_argument('--root', type=Path, default=root, help='of another checkout')
    p.add_argument('--lower', action='store_true', help=f'write the counts that fell into {kept}')
    a = p.parse_args()
    if a.lower: return print(lower(a.root))
    if a.walk: return print('\n'.join(trips(a.root, [a.walk]).values()))
    for name in a.only:
        print(f'\n{name}')
        for k,v in parts[name](a.root).items(): print(f'  {k}: {v}')

if __name__=='__main__': main()
