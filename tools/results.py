"""What the saved outputs of slow cells hold, as rows of results: nbs/results/saved.tsv.

    python tools/results.py            # write it anew
    python tools/results.py --check    # say what the outputs no longer show

Each entry names a notebook, a cell, its table, a column and the roles of the rows. No number is typed here: numbers,
intervals and how many people there were are read from the output. The date stands in the text before the cell, or is
that of the commit that brought the output. Runs that write tables of their own (`brainlm.evidence.keep_results`) need
no entry."""
import argparse
import html
import json
import re
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd

from brainlm.evidence import keep_results, kept_columns, read_kept

root = Path(__file__).resolve().parents[1]
out = root/'nbs'/'results'/'saved.tsv'

# Tables in saved outputs

class Rows(HTMLParser):
    "The cells of a table, each where it stands; what spans several rows or columns stands in each of them"
    def __init__(self, text):
        super().__init__()
        self.at, self.row, self.open, self.head = {}, -1, None, 0
        self.feed(text)
    def handle_starttag(self, tag, attrs):
        if tag=='tr': self.row, self.column = self.row+1, 0
        if tag in ('td', 'th'): self.open, self.span = '', {k: int(v) for k,v in attrs if k in ('rowspan', 'colspan')}
    def handle_data(self, data):
        if self.open is not None: self.open += data
    def handle_endtag(self, tag):
        if tag=='thead': self.head = self.row+1
        if tag not in ('td', 'th') or self.open is None: return
        while (self.row, self.column) in self.at: self.column += 1
        for i in range(self.span.get('rowspan', 1)):
            for j in range(self.span.get('colspan', 1)): self.at[self.row+i,self.column+j] = self.open.strip()
        self.open = None

def from_html(text):
    "A table: strings, index and columns as words joined by ' | '"
    t = Rows(re.sub('<style.*?</style>', '', text, flags=re.S))
    grid = pd.Series(t.at).unstack().fillna('')
    head, body = grid.iloc[:t.head], grid.iloc[t.head:]
    several = len(head)>1 and not head.iloc[-1].iloc[1:].any()               # a last line that names the index alone
    names = [' | '.join(filter(None, head.iloc[:-1 if several else None,j])) for j in range(grid.shape[1])]
    return pd.DataFrame(body.to_numpy(), columns=names)

def from_markdown(text):
    "A table written with bars"
    lines = [[c.strip() for c in o.strip('| ').split('|')] for o in text.splitlines() if o.startswith('|')]
    return pd.DataFrame(lines[2:], columns=lines[0])

def join(o): return ''.join(o) if isinstance(o, list) else o

def cell_of(notebook, cell):
    "The cell, and the text before it"
    cells = json.loads((root/'nbs'/f'{notebook}.ipynb').read_text(encoding='utf-8'))['cells']
    k = next((i for i,c in enumerate(cells) if c['id']==cell), None)
    if k is None: raise ValueError(f'{notebook}: found no cell {cell}, expected one with a result that is kept')
    return cells[k], '\n'.join(join(c['source']) for c in cells[:k] if c['cell_type']=='markdown')

def tables_of(cell):
    "The tables that a cell shows, and all its words"
    data = [o['data'] for o in cell['outputs'] if 'data' in o]
    found = [from_html(join(d['text/html'])) if 'text/html' in d else from_markdown(join(d['text/markdown']))
             for d in data if {'text/html', 'text/markdown'} & d.keys()]
    return found, '\n'.join(join(d.get('text/html', d.get('text/markdown', ''))) for d in data)

number = r'[-+−]?\d+(?:\.\d+)?'
def numbers(text):
    "Value, low and high of a cell of a table; NaN where none stands"
    found = re.findall(number, text.replace('−', '-'))
    return [float(o) for o in (found+[np.nan]*3)[:3]]

# Where results stand

@dataclass
class Saved:
    "A column of a saved table"
    notebook:str
    cell:str
    claim:str
    task:str
    data:str
    kind:str
    metric:str
    column:str # whose header ends like this
    ours:list # rows, the one that leads first
    controls:list = field(default_factory=list)
    rivals:list = field(default_factory=list)
    table:int = 0 # of the cell
    where:dict = field(default_factory=dict) # other columns that must hold this
    against:str = '' # column of differences from a rival
    rival:str = '' # its name
    p:tuple = () # columns of p and of what it is after correction, beside a null
    null:str = ''
    people:str = '' # cell that says how many there are; '': this one
    pairs:tuple = () # cell and columns (one, other, difference) of a table of pairs
    version:str = '0.1.0' # that measured it
    names:dict = field(default_factory=dict) # of models, where the output has shorter ones

    def __post_init__(self): self.shown = cell_of(self.notebook, self.cell)

def column(t, name):
    "The one column whose header ends like this"
    found = [c for c in t if c==name or c.endswith(name)]
    if len(found)!=1: raise ValueError(f'found {len(found)} columns that end in {name!r}, expected one of {list(t)}')
    return t[found[0]]

def picked(t, e):
    "The rows of an entry by name"
    for k,v in e.where.items(): t = t[column(t, k)==v]
    name = t['model'] if 'model' in t else t.iloc[:,0]
    return t.set_axis(name, axis=0)

def people(words):
    "How many there are, by the first words that say so"
    found = re.search(r'(?:(\d+) and )?(\d+) (?:subjects|people)', html.unescape(words))
    return sum(int(o) for o in found.groups() if o)

def values(e):
    "A row for each model, and one for each pair"
    found, words = tables_of(e.shown[0])
    t = picked(found[e.table], e)
    if e.people: words = tables_of(cell_of(e.notebook, e.people)[0])[1]
    n = int(t['n'].iloc[0]) if 'n' in t else people(words)
    roles = dict.fromkeys(e.ours, 'model') | dict.fromkeys(e.rivals, 'rival') | dict.fromkeys(e.controls, 'control')
    alone = {}
    for m,role in roles.items():
        value, low, high = numbers(column(t, e.column)[m])
        alone[m] = dict(model=m, role=role, value=value, low=low, high=high, n=n)
    return [*alone.values(), *differences(e, t, alone), *nulls(e, t, alone), *paired(e, alone)]

def differences(e, t, alone):
    "From a column of differences"
    if not e.against: return
    for m in e.ours:
        d, low, high = numbers(column(t, e.against)[m])
        if np.isfinite(d): yield alone[m] | dict(rival=e.rival, difference=d, difference_low=low, difference_high=high)

def nulls(e, t, alone):
    "From columns of p"
    if not e.p: return
    for m in [*e.ours, *e.controls, *e.rivals]:
        p, q = (numbers(column(t, c)[m])[0] for c in e.p)
        yield alone[m] | dict(rival=e.null, p=p, p_family=q)

def paired(e, alone):
    "From a table that names both"
    if not e.pairs: return
    cell, one, other, name = e.pairs
    t = tables_of(cell_of(e.notebook, cell)[0])[0][-1]
    for _,r in t.iterrows():
        mine, its = (re.sub('^less ', '', r[c] if isinstance(c, str) else r.iloc[c]) for c in (one, other))
        d, low, high = numbers(r[name])
        pair = dict(rival=its, difference=d, difference_low=low, difference_high=high)
        if mine in e.ours and its in alone: yield alone[mine] | pair

def dated(e):
    "Date and commit of an output"
    text = re.findall(r'20\d\d-\d\d-\d\d', e.shown[1])
    words = next(o for o in reversed(re.findall(r'\d\.\d+ \[[^\]]+\]', tables_of(e.shown[0])[1])))
    log = ['git', '-C', str(root), 'log', '--format=%h %as', '-S', words, '--', f'nbs/{e.notebook}.ipynb']
    commits = subprocess.run(log, capture_output=True, text=True).stdout.split('\n')
    commit, _, day = ([o for o in commits if o] or [' '])[-1].partition(' ')
    return text[-1] if text else day, commit

def rows_of(e):
    "An entry as rows, without date and commit"
    facts = dict(claim=e.claim, task=e.task, data=e.data, kind=e.kind, metric=e.metric, unit='people')
    t = pd.DataFrame(values(e)).assign(**facts).reindex(columns=kept_columns)
    return t.assign(**{k: t[k].replace(e.names) for k in ('model', 'rival')})

hcp, sim = dict(data='HCP rest', kind='real'), dict(data='simulated cohort', kind='simulated')
heat = dict(data='heat pain', kind='real')
three = [f'untrained, seed {i}' for i in range(3)]

def hidden(mask):
    "Hidden stretches"
    return Saved('21_pretraining', '2d48e2af', 'reconstruction' if mask=='0.2' else '',
                 f'hidden stretches filled in, mask {mask}', **hcp,
                 metric='R²', column=f'R² | {mask}', ours=['axial + Gaussian start', 'axial', 'joint (paper-style)'],
                 rivals=['mean', 'interpolation', 'gaussian'], against=f'paired | {mask}', rival='gaussian',
                 names={'axial + Gaussian start': 'BrainLM (axial attention, Gaussian start)',
                        'axial': 'BrainLM (axial attention)',
                        'joint (paper-style)': 'BrainLM (joint attention, as in the paper)'})

def futures():
    "The frames to come"
    deep, linear = ['LSTM', 'neural ODE', 'latent ODE'], ['VAR + means ridge', 'VAR(1) ridge', 'AR ridge']
    how = dict(notebook='31_forecasting', claim='forecasting', metric='R²', column='R², steps 1-20')
    yield Saved(**how, **hcp, cell='cdd9dd1c', task='the next 20 frames, by BrainLM alone',
                ours=['BrainLM fine-tuned', 'BrainLM zero-shot'],
                rivals=[*linear, *deep, 'persistence'], controls=['BrainLM without pretraining'],
                pairs=('5a2c8cde', 'better', 'than', 'difference'))
    yield Saved(**how, **hcp, cell='2fb84b8e',
                task='the next 20 frames, what a vector autoregression (VAR) leaves over',
                ours=['VAR + BrainLM', 'VAR + BrainLM, 4 masks'],
                rivals=['VAR + means ridge', 'VAR + LSTM', 'AR ridge', 'blend: VAR, AR'],
                controls=['VAR + BrainLM, not pretrained'],
                pairs=('3fe7cb87', 'better', 'than', 'R²'))
    yield Saved(**how, cell='1c74db60', data='HCP sample', kind='real',
                task='the next 20 frames, of people of another sample',
                ours=['VAR + means, BrainLM on the residual', 'BrainLM fine-tuned'], rivals=[*linear, *deep],
                pairs=('7937cf12', 'better', 'than', 'R²'),
                names={'VAR + means, BrainLM on the residual': 'VAR + BrainLM'})

def variables():
    "Variables of the person"
    words = dict(age='age', neuroticism='neuroticism', pcl5='symptoms of trauma (PCL-5)', gad7='anxiety (GAD-7)',
                 phq9='depression (PHQ-9)', sex='sex')
    for target in [*words, 'phq9 > 4']:
        metric, rival = ('AUC', 'logistic') if target in ('sex', 'phq9 > 4') else ('r', 'ridge')
        task = words.get(target, 'depression or not (PHQ-9 above 4)')
        yield Saved('32_clinical', 'e4c09b72', 'clinical' if target in ('age', 'phq9 > 4') else '', task, **sim,
                    metric=metric, column=metric,
                    where=dict(target=target), ours=['BrainLM fine-tuned', 'BrainLM fine-tuned, 30 epochs',
                                                     f'{rival} on frozen CLS of BrainLM'],
                    rivals=[f'{rival} on FC (correlation)'], controls=['BrainLM without pretraining'],
                    names={f'BrainLM fine-tuned{o}': f'BrainLM fine-tuned from zeros on CLS{o}' for o in ('', ', 30 epochs')})

def maps():
    "What attention looks at; networks have a table of their own, networks.tsv"
    how = dict(notebook='41_attention', claim='attention in a task')
    cls = [f'CLS attention{o}' for o in ('', ', seed 1', ', seed 2')]
    yield Saved(**how, **heat, cell='f5fa78c0', task='heat less rating, the insula', metric='AUC', column='AUC',
                ours=['CLS attention'],
                rivals=['variance', 'mean level (no model)'], controls=['untrained'],
                names={'variance': 'variance without any model'})
    yield Saved(**how, **sim, cell='ce63761c', task='visual task less rest, the visual parcels', metric='share found',
                column='sensitivity',
                ours=cls, rivals=['variance', 'FC strength'], controls=three,
                names={'variance': 'variance without any model'})
    how = dict(notebook='41_attention', claim='attention in depression', cell='e30d7322', metric='AUC', column='AUC',
               **sim)
    parcels = {f'… {o}': f'{o}' for o in ('first layer, seed 1', 'first layer, seed 2', 'second layer',
                                          'first layer, untrained')}
    yield Saved(**how, task='severe less mild depression, where CLS looks', ours=['CLS attention', 'rollout'],
                rivals=['variance', 'FC strength'],
                controls=['CLS attention, untrained'], names={'variance': 'variance without any model'})
    yield Saved(**how, task='severe less mild depression, where parcels look',
                ours=['attention to networks, first layer', *list(parcels)[:3]],
                rivals=['FC to networks'], controls=[*parcels][3:],
                names={'attention to networks, first layer': 'attention of parcels, first layer'} | parcels)

def energies():
    "Where a perturbation puts its energy"
    how = dict(notebook='42_perturbation', claim='perturbation', null='turned maps')
    yield Saved(**how, **heat, cell='964bf4cb', task='from rating to heat',
                metric='share of the energy in the insula', column='insula', p=('p', 'p'),
                ours=['trained, tokens', 'trained, cls'], controls=['untrained, tokens', 'untrained, cls'],
                rivals=['squared mean change of the signal'],
                names={'trained, tokens': 'BrainLM (tokens)', 'trained, cls': 'BrainLM (CLS)',
                       'squared mean change of the signal': 'change of the signal without any model'})
    yield Saved(**how, **sim, cell='52d63aea', task='from rest to a visual task',
                metric='share of the energy in the visual network', column='in Visual',
                ours=[f'trained, seed {i}' for i in range(3)], controls=three, rivals=['change of variance'],
                p=('p', 'q'), people='22ec1120',
                names={'trained, seed 0': 'BrainLM (tokens)', 'trained, seed 1': 'seed 1',
                       'trained, seed 2': 'seed 2', 'change of variance': 'change of variance without any model'})

def entries():
    "All of them, in the order of the claims"
    yield from map(hidden, ('0.2', '0.5', '0.75'))
    for some in (futures, variables, maps, energies): yield from some()

# All of them

facts = ['claim', 'task', 'data', 'kind', 'metric', 'model', 'role', 'rival', 'value', 'low', 'high', 'n']
facts += ['difference', 'p', 'p_family']

def check(file=out):
    "What the saved outputs show otherwise, in words"
    new = pd.concat([rows_of(e) for e in entries()])
    old = read_kept(file)
    def word(v): return '' if pd.isna(v) else f'{v:g}' if isinstance(v, float) else str(v)
    def text(t): return {'\t'.join(map(word, r)) for r in t[facts].itertuples(index=False)}
    return sorted(text(old)-text(new))

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--check', action='store_true', help='write nothing; fail if the outputs do not show a row')
    if p.parse_args().check:
        lost = check()
        sys.exit('\n'.join(['not what saved outputs show; run python tools/results.py', *lost]) if lost else 0)
    out.unlink(missing_ok=True)
    for e in entries():
        date, commit = dated(e)
        source = f'saved output of nbs/{e.notebook}.ipynb, cell {e.cell}'
        keep_results(out, rows_of(e), source, date, commit=commit, version=e.version)
    t = read_kept(out)
    print(f'{out.relative_to(root)}: {len(t)} rows of {t.task.nunique()} tasks')

if __name__=='__main__': main()
