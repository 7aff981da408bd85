"""Pushes and turns of the shipped model, on data whose answer is known or measured elsewhere. Quick on a CUDA card.

    python tools/pushes.py pack          # where the data are: task betas of HCP, onsets of heat, known networks
    python tools/pushes.py run           # arrays in the work folder, each made once
    python tools/pushes.py trial         # a little of it, on a CPU, in a work folder of its own
    python tools/pushes.py table         # nbs/results/responses.tsv, of the arrays in the work folder

`--only` names what is made, by the first letters of its array. Arrays that a table speaks of:

`respond-*`: each of 360 areas is pushed by 1 IQR in 8 people whom the model has not seen, with the network and with its
prior alone. Turns, what must change for one condition to look like another (`brainlm.perturbation.optimise`):
`simulated`, people in whom a visual task is planted; `betas-*`, HCP rest to which the people's own task betas are added
in blocks; `heat-*`, people who rate heat, or feel little of it, turned toward (strong) heat. Beside the network stands
one that has learned nothing, and the same search with a VAR(1) in its place. `known-*`: networks whose connections are
published, pushed in forecasters of 500 to 8,000 frames. `folded-*`: of networks of which a linear map sees half."""
import argparse
import os
import time
from dataclasses import replace
from pathlib import Path

for k in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'): os.environ.setdefault(k, '1')

import numpy as np
import pandas as pd
import scaling
import torch
from scipy.stats import spearmanr
from torch import nn

from brainlm.atlas import Parcellation, load_parcellation
from brainlm.basics import write_whole
from brainlm.datasets import fetch_connectome, fetch_hcp_rest
from brainlm.evidence import keep_results, result_rows
from brainlm.maps import compare_maps, compare_matrices
from brainlm.model import BrainLM
from brainlm.perturbation import (
    apart,
    directed_agreement,
    direction,
    optimise,
    ridge_partial_correlation,
    var_step,
)
from brainlm.protocol import at_interval
from brainlm.recordings import RecordingStore
from brainlm.responses import answers, folded_network, folded_series, push_halves, step_windows
from brainlm.scaling import RobustScaler
from brainlm.simulation import simulate_cohort
from brainlm.stats import mean_interval, verdicts

root = Path(__file__).resolve().parents[1]
tasks = ('emotion:fear', 'gambling:win', 'language:story', 'motor:tongue', 'relational:relation', 'social:mental',
    'wm_2back:faces')

def pack(a):
    "Task betas of the people of HCP rest, onsets of heat, and networks with known connections"
    from brainlm.datasets import fetch_hcp_task_betas, fetch_npi, fetch_pain_task
    got = fetch_hcp_task_betas()
    beta = got.beta[:,[got.conditions.index(t) for t in tasks]]
    a.data.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(a.data/'betas.npz', beta=beta.astype('float16'), subjects=got.subjects)
    known = {f'{w}{k}': o[n] for k,o in enumerate(fetch_npi()) for w,n in (('x', 'series'), ('e', 'effective'))}
    np.savez_compressed(a.data/'npi.npz', **known)
    fetch_pain_task().epochs.to_csv(a.data/'heat.tsv', sep='\t', index=False)

def hcp_windows(a):
    "The first window of each person, scaled [person, 360, 200], whether the shipped model has seen them, and names"
    got, scaler = np.load(a.cohorts/'hcp.npz'), RobustScaler.load(a.cohorts/'hcp-all.json')
    x = np.stack([scaler.transform(o[:200].astype('float32')).T for o in got['x']])
    names = np.array([str(s).split('-')[-1] for s in got['subject']])
    return torch.from_numpy(x).float().to(a.device), ~np.isin(names, scaling.left_out['hcp']), names

def kept(a, name, make):
    "Arrays that are made once"
    file = a.work/f'{name}.npz'
    if file.exists() or not scaling.claimed(file): return
    start = time.time()
    arrays = make() | dict(device=torch.cuda.get_device_name() if a.device=='cuda' else 'CPU', steps=a.steps)
    write_whole(file, lambda part: scaling.save_arrays(part, arrays))
    print(name, f'{time.time()-start:.0f} s', flush=True)

def pushed_windows(x, parcels):
    "People's windows [person, parcel, time], as they are and with each of some parcels pushed, and what is hidden"
    y, mask = (o.repeat(len(parcels), 1, 1) for o in (x, torch.zeros_like(x[:,:,:10], dtype=torch.bool)))
    mask[:,:,8:] = True
    for i,p in enumerate(parcels):
        at = slice(i*len(x), (i+1)*len(x))
        y[at,p,160:180] += 1
        mask[at,p,8] = False
    return torch.cat([x.repeat(len(parcels), 1, 1), y]), torch.cat([mask, mask])

@torch.no_grad()
def respond(a, seeds):
    "What a push of each area by 1 IQR changes, in its own 20 frames and in the next: [seed, person, parcel]"
    model = BrainLM.from_pretrained('brainlm-small').to(a.device)
    x, seen, names = hcp_windows(a)
    x, said = x[torch.as_tensor(~seen)][:a.people], {}
    plain = model._prior_guess
    def guess(*args):
        said['prior'] = plain(*args)
        return said['prior']
    model._prior_guess = guess
    out = {k: [] for k in ('now', 'next', 'prior_now', 'prior_next')}
    for p in range(0, len(seeds), a.at_once):
        both, mask = pushed_windows(x, seeds[p:p+a.at_once])
        guesses = dict(zip(('', 'prior_'), (model(both, mask=mask).prediction, said['prior'])))
        for k,o in guesses.items():
            o = o[:,:,8:].mean(3)
            change = (o[len(o)//2:]-o[:len(o)//2]).unflatten(0, (-1, len(x))).cpu().numpy()
            for i,when in enumerate(('now', 'next')): out[k+when].append(change[...,i])
    return dict(seeds=np.array(seeds), names=names[~seen][:a.people]) | {k: np.concatenate(v) for k,v in out.items()}

# What must change

def untrained(model):
    "A network of the same shape that has learned nothing"
    torch.manual_seed(0)
    c = replace(model.config, prior='none')
    return BrainLM(c, model.parcellation, model.scaler).to(model.cls.device).eval()

class LinearModel(nn.Module):
    "A VAR(1) in a network's place: its tokens are mean and SD of what it foretells of a parcel in a patch"
    def __init__(self, like, series): # [person, parcel, time], NaN where missing
        super().__init__()
        self.config, self.parcellation = like.config, like.parcellation
        step = torch.from_numpy(var_step([o.T for o in series.cpu().numpy()])).float()
        self.step = nn.Parameter(step.to(series.device), requires_grad=False)
    def encode(self, x, valid=None):
        y = (x.mT@self.step).mT.unflatten(-1, (-1, self.config.patch_size))
        z = torch.stack([y.mean(-1), (y.var(-1, correction=0)+1e-6).sqrt()], -1)
        return (z if valid is None else z.masked_fill(~valid[...,None], float('nan'))), None

def change_of(what, first, second):
    "[parcel], of people's windows that may have gaps"
    first, second = (o.cpu().numpy() for o in (first, second))
    if what=='mean': return np.abs(np.nanmean(second, (0, 2))-np.nanmean(first, (0, 2)))
    return np.abs(np.nanmean(np.var(second, -1), 0)-np.nanmean(np.var(first, -1), 0))

def turned(a, model, first, second, takers):
    "Energy [person, parcel] of the change from a condition toward another, and what is left of the distance"
    def there(x): return ~x.isnan().unflatten(2, (-1, model.config.patch_size)).any(3)
    linear, valid, out = LinearModel(model, torch.cat([first, second])), there(takers), {}
    ways = dict(trained=(model, 'additive'), untrained=(untrained(model), 'additive'))
    ways |= dict(linear=(linear, 'additive'), gain=(linear, 'gain'))
    for name,(m,kind) in ways.items():
        shift = direction(m, first, second, 'tokens', (there(first), there(second)))
        r = optimise(m, takers, shift, kind, 'tokens', steps=a.steps, batch_size=32, valid=valid)
        out |= {f'{name}_energy': r.energy, f'{name}_left': r.distance}
        if kind!='gain': out[f'{name}_far'] = apart(m, takers, shift, 'tokens', valid, batch_size=32)
    return out | {k: change_of(k, first, second) for k in ('power', 'mean')} | dict(givers=len(first))

def simulated(a):
    "People at rest and in a visual task"
    model = BrainLM.from_pretrained('brainlm-small', 'aal2').to(a.device)
    folder = a.work/'simulated'
    if not (folder/'table.tsv').exists(): simulate_cohort(folder, a.cohort, 'aal2', seed=2, progress=False)
    store = RecordingStore(folder)
    scaler, t, found = RobustScaler().fit(store, rows='all'), store.table, {}
    for k in ('rest', 'visual'):
        rows = t[t['task']==k].drop_duplicates('subject').sort_values('subject').index
        signals = [scaler.transform(store[int(i)].signal[:200]).T for i in rows]
        found[k] = torch.from_numpy(np.stack(signals)).float().to(a.device)
    n = 2*len(found['rest'])//3
    return turned(a, model, found['rest'][:n], found['visual'][:n], found['rest'][n:])

def with_betas(a, task):
    "HCP rest, and the same people's rest with their own betas in blocks of 20 frames, as large as 1 IQR in the mean"
    model = BrainLM.from_pretrained('brainlm-small').to(a.device)
    x, seen, names = hcp_windows(a)
    got = np.load(a.data/'betas.npz')
    order = [list(map(str, got['subjects'])).index(n) for n in names]
    beta = got['beta'][order,tasks.index(task)].astype('float32')
    beta /= np.sqrt((beta**2).mean())
    blocks = np.convolve(np.arange(200)//20%2, np.hanning(9)/np.hanning(9).sum(), 'same')
    both = x+torch.from_numpy(beta[:,:,None]*blocks.astype('float32')).to(x)
    give, take = torch.as_tensor(seen), torch.as_tensor(~seen)
    found = turned(a, model, x[give], both[give], x[take])
    return found | dict(truth=beta[~seen]**2, others=beta[seen]**2)

# Heat

heats, lasts = 9, 20    # of a run, and frames of each: one patch of 14.4 s, which reads 4.3 s late
after_s = dict(heat=4.3, rating=22.)    # onset of heat; it lasts 12.5 s, and is rated from 18 to 32 s

def patches_of(x, onsets_s, dt_s): # [time, parcel] → [parcel, patches of frames]
    "Stretches of a recording put in a row"
    return np.concatenate([x[k:k+lasts].T for k in np.round(np.asarray(onsets_s)/dt_s).astype(int)], 1)

def heat_windows(a, dt_s):
    "Conditions by name, [run, parcel, time] each with NaN where missing, not scaled; the person of each run"
    got, epochs, out = np.load(a.cohorts.parent/'second'/'pain.npz'), pd.read_csv(a.data/'heat.tsv', sep='\t'), []
    runs = [g for _,g in epochs.groupby(['subject', 'run'])]
    for x,n,g in zip(got['x'], got['n_time'], runs, strict=True):
        x = at_interval(x[:n].astype('float32'), float(got['dt_s']), dt_s)
        g = g[g['onset_s']+after_s['rating']+lasts*dt_s<=len(x)*dt_s][:heats]
        by = g.sort_values('temperature', kind='stable')
        ways = {k: (g, v) for k,v in after_s.items()}
        ways |= {k: (o.sort_index(), after_s['heat']) for k,o in (('weak', by[:4]), ('strong', by[-4:]))}
        out.append({k: patches_of(x, o['onset_s']+v, dt_s) for k,(o,v) in ways.items()})
    who = np.array([int(str(s).split('-')[-1]) for s in got['subject']])
    return {k: np.stack([o[k] for o in out]) for k in out[0]}, who

def scaled_by(windows, rows):
    "Windows in the median and IQR of some of them; parcels without any IQR there are missing"
    x = np.concatenate([o[rows] for o in windows.values()], 2).swapaxes(1, 2)
    low, mid, high = np.nanpercentile(x, [25, 50, 75], (0, 1))
    iqr = np.where(high>low, high-low, np.nan)
    return {k: ((o-mid[:,None])/iqr[:,None]).astype('float32') for k,o in windows.items()}

def heat(a, source, target):
    "People 1 to 16 give the direction; the others' first runs are turned, and their other runs say what it should be"
    model = BrainLM.from_pretrained('brainlm-small')
    model = model.on(load_parcellation(a.cohorts.parent/'second'/'pain.tsv')).to(a.device).eval()
    windows, who = heat_windows(a, .72)
    windows, give = scaled_by(windows, who<=16), who<=16
    first = ~give & (np.diff(who, prepend=0)>0) & np.isin(who, who[1:][np.diff(who)==0])
    def some(k, rows): return torch.from_numpy(windows[k][rows]).to(a.device)
    found = turned(a, model, some(source, give), some(target, give), some(source, first))
    change = windows[target].mean(2)-windows[source].mean(2)
    own = np.stack([np.nanmean(change[(who==w) & ~first], 0) for w in who[first]])
    return found | dict(truth=own**2, others=np.nanmean(change[give], 0)**2)

# Networks whose connections are known

def known(a, k, frames, steps):
    "Agreement with a published network: of BrainLM after so many steps, or without it"
    got = np.load(a.data/'npi.npz')
    x, truth = got[f'x{k}'][:frames].astype(float), got[f'e{k}']
    names = ['BrainLM'] if steps else ['VAR(1)', 'perceptron']
    t = answers(x, truth, names=names, seed=k, device=a.device, **(dict(steps=steps) if steps else {}))
    odd = dict(zip(t['forecaster'], t['odd']))
    if not steps: odd['partial correlation'] = directed_agreement(ridge_partial_correlation(x, .01), truth)
    return dict(names=np.array(list(odd)), odd=np.array(list(odd.values())), trained=steps)

def folded(a, k, frames):
    "The same with a network of which a linear map sees half"
    net = folded_network(np.random.default_rng(k))
    x = folded_series(net, frames, np.random.default_rng(1000+k))
    truth = push_halves(net, step_windows(x)[0][:2000], x.std(0).mean())
    t = answers(x, *truth, names=['BrainLM'], steps=a.long, seed=k, device=a.device)
    return dict(odd=t['odd'].to_numpy(), even=t['even'].to_numpy())

def jobs_of(a):
    "Name of each array, and what makes it"
    areas = list(range(0, a.areas, a.each))
    jobs = {f'respond-{k:03}': lambda k=k: respond(a, areas[k:k+a.part]) for k in range(0, len(areas), a.part)}
    jobs |= {f'heat-{s}-{t}': lambda s=s, t=t: heat(a, s, t) for s,t in (('rating', 'heat'), ('weak', 'strong'))}
    jobs |= dict(simulated=lambda: simulated(a))
    jobs |= {f'betas-{t.replace(":", "-")}': lambda t=t: with_betas(a, t) for t in tasks[:a.tasks]}
    each = [(n, s) for n in (2000, 4000, 500, 8000) for s in (0, a.short)]+[(8000, a.long)]
    jobs |= {f'known-{k}-{n}-{s}': lambda k=k, n=n, s=s: known(a, k, n, s) for n,s in each for k in range(3)}
    return jobs | {f'folded-{k}-8000': lambda k=k: folded(a, k, 8000) for k in range(3)}

def run(a):
    "All of it, or what is asked for"
    for name,make in jobs_of(a).items():
        if time.time()<a.until and (not a.only or name.startswith(tuple(a.only))): kept(a, name, make)

def trial(a):
    "All of it, at a size that measures nothing"
    a.work = a.work.with_name(f'{a.work.name}-trial')
    a.work.mkdir(parents=True, exist_ok=True)
    a.steps, a.people, a.each, a.cohort, a.tasks, a.short, a.long = 2, 2, 90, 6, 1, 9, 10
    run(a)

# What is kept of it

file = root/'nbs'/'results'/'responses.tsv'

def where(o): return f"on {'an' if str(o['device']).startswith('NVIDIA H') else 'a'} {o['device']}"

def told(rows, how, *arrays):
    "Rows, and the command that made their arrays, with the machine"
    return rows, f"python tools/pushes.py run {how} ({', '.join(sorted({where(o) for o in arrays}))}), then table"

def responses_of(a):
    "All parts of `respond` as one, and the command; responses [person, pushed, pushed] of what was pushed"
    parts = [np.load(f) for f in sorted(a.work.glob('respond-*.npz'))]
    seeds, found = np.concatenate([o['seeds'] for o in parts]), {}
    for who,key in (('brainlm-small', ''), ('its prior alone', 'prior_')):
        for when,name in (('same', 'now'), ('next', 'next')):
            m = np.concatenate([o[key+name] for o in parts]).swapaxes(0, 1)[:,:,seeds].astype(float)
            found[who,when] = m*(1-np.eye(len(seeds)))
    return seeds, parts[0]['names'], found, parts

def linear_of(names, seeds):
    "VAR(1) of each of the people who were pushed, of all of them and of those that the model learned from"
    scaler = BrainLM.from_pretrained('brainlm-small').scaler
    x = {str(r.subject): scaler.transform(r.signal) for r in fetch_hcp_rest()}
    ours, others = [x[k] for k in names], [v for k,v in x.items() if k not in scaling.left_out['hcp']]
    def step(o): return var_step(o)[np.ix_(seeds, seeds)]
    partial = ridge_partial_correlation(ours)[np.ix_(seeds, seeds)]
    return np.stack([step(o) for o in ours]), dict(zip(linear_names, (step(ours), step(others), partial)))

linear_names = 'VAR(1) of the same people', 'VAR(1) of the 22 others', 'partial correlation of the same people'

def part_of(m, sign): # [..., pair], the mean of both directions, or half their difference
    i, j = np.triu_indices(m.shape[-1], 1)
    return (m[...,i,j]+sign*m[...,j,i])/2

def compared(a, ours, theirs, areas):
    "`compare_matrices`, made once"
    file = a.work/f'compared-{len(areas)}.tsv'
    if not file.exists():
        found = compare_matrices(ours, theirs, Parcellation('pushed areas', areas))
        write_whole(file, found.to_csv(sep='\t'))
    return pd.read_csv(file, sep='\t')

def chance_rows(found, areas, facts):
    "Mean responses beside other matrices: a row for each, and one for what chance gives it"
    for (other,part),t in found.groupby(['theirs', 'part'], sort=False):
        t = t.set_index('ours').assign(n=len(areas))
        chance = t[['expected', 'low', 'high', 'n']].rename(columns=dict(expected='value'))
        t, chance = t[['r', 'n', 'p', 'q']].rename(columns=dict(r='value')), chance.rename('chance: {}'.format)
        named = [k for k in t.index if 'brainlm' in k]
        rows = result_rows(pd.concat([t[['value', 'n']], chance]), (), named, chance.index, unit='areas', metric='r',
            task=f'pushes at rest beside {other}, {part} part', **facts)
        p, q = rows['model'].map(t['p']), rows['model'].map(t['q'])
        test = np.where(p.notna(), 'matrices by chance', '')
        yield rows.assign(p=p, p_family=q, family=p.notna().map({True: len(found)}), test=test)

def person_rows(each, theirs, facts):
    "Responses [person, pushed, pushed] beside other matrices, and the model beside its rivals over people"
    mine = 'brainlm-small'
    for other,truth in theirs.items():
        for part,sign in [('symmetric', 1)]+[('antisymmetric', -1)]*(other!='fibres of 207 people'):
            true = part_of(truth, sign)
            r = {k: np.array([np.corrcoef(o, true)[0,1] for o in part_of(m, sign)]) for k,m in each.items()}
            found = verdicts({k: r[mine]-v for k,v in r.items() if k!=mine}, mine, 'r')
            yield result_rows(means(r), found, [mine], metric='r', **facts,
                task=f'pushes of single people beside {other}, {part} part')

def pushed(a):
    "Pushes beside fibres and effective connectivity: of people in the mean, and of each"
    seeds, names, found, parts = responses_of(a)
    theirs = {'fibres of 207 people': 'structural', 'effective connectivity of 800 people': 'effective'}
    theirs = {k: fetch_connectome(n).matrix[np.ix_(seeds, seeds)] for k,n in theirs.items()}
    areas = load_parcellation('glasser360').table.iloc[seeds].reset_index(drop=True)
    each, linear = linear_of(names, seeds)
    ours = {f'push of {who}, {when} 20 frames': m.mean(0) for (who,when),m in found.items()}
    facts = dict(data=f'HCP rest, {len(areas)} areas, pushed in {len(names)} unseen people')
    how = f'--only respond --people {len(names)} --areas {len(areas)}', *parts
    for rows in chance_rows(compared(a, ours | linear, theirs, areas), areas, facts): yield told(rows, *how)
    people = {who: m for (who,when),m in found.items() if when=='same'} | {'VAR(1) of own 1,200 frames': each}
    people['VAR(1) of the 22 others'] = np.tile(linear['VAR(1) of the 22 others'], (len(names), 1, 1))
    for rows in person_rows(people, theirs, facts): yield told(rows, *how)

def means(maps): # name: [person]
    "Mean and interval of each"
    rows = {k: (x.mean(), *mean_interval(x), len(x)) for k,x in maps.items()}
    return pd.DataFrame(rows, ['value', 'low', 'high', 'n']).T

searched = dict(trained='brainlm-small', untrained='untrained')
searched |= dict(linear='VAR(1) in its place', gain='VAR(1), a gain each')
changes = dict(power='change of variance', mean='change of mean')

def agreed(o):
    "Spearman's r with the own change of each person, by name of what was searched or simply compared"
    n, maps = len(o['truth']), {v: o[f'{k}_energy'] for k,v in searched.items()}
    maps |= {v: np.tile(o[k], (n, 1)) for k,v in changes.items()}
    if o['others'].ndim>1: maps['betas of other people'] = np.tile(o['others'].mean(0), (n, 1))
    return {k: np.array([spearmanr(x, y, nan_policy='omit')[0] for x,y in zip(m, o['truth'])]) for k,m in maps.items()}

def turn_rows(r, kind, metric, task, data, **beside):
    "What was found in each person, by name, with verdicts; `beside` are values without people"
    mine, t = 'brainlm-small', means(r)
    for k,v in beside.items(): t.loc[changes[k]] = v, np.nan, np.nan, np.nan
    found = verdicts({k: r[mine]-v for k,v in r.items() if k!=mine}, mine, metric)
    return result_rows(t, found, [mine], ['untrained'], kind=kind, metric=metric, data=data,
        task=f'where G changes {task}')

def beta_rows(a):
    "Is G where the own betas are? Mean over tasks in each person"
    files = sorted(a.work.glob('betas-*.npz'))
    arrays = [np.load(f) for f in files]
    r = pd.DataFrame([agreed(o) for o in arrays]).map(np.asarray)
    r = {k: np.mean(list(v), 0) for k,v in r.items()}
    data = f"HCP rest with own betas of {len(files)} tasks in blocks; {arrays[0]['givers']} people give the direction"
    rows = turn_rows(r, 'semi-synthetic', 'r', 'rest toward a task, beside own squared betas', data)
    yield told(rows, f"--only {' '.join(f.stem for f in files)} --steps {arrays[0]['steps']}", *arrays)

def shares(o, there):
    "Share of the energy in some parcels: of each person, and of changes without a search"
    def share(e): return np.nansum(e[...,there], -1)/np.nansum(e, -1)
    return {v: share(o[f'{k}_energy']) for k,v in searched.items()}, {k: share(o[k]**2) for k in changes}

def with_chance(rows, o, there, parcellation):
    "Rows with the p of each map beside maps by chance that are as smooth"
    maps = {v: np.nanmean(o[f'{k}_energy'], 0) for k,v in searched.items()} | {v: o[k]**2 for k,v in changes.items()}
    asked = pd.DataFrame(dict(there=there.astype(float)), parcellation.names)
    p = pd.Series({k: compare_maps(m, asked, parcellation)['p'].iloc[0] for k,m in maps.items()})
    alone = rows['rival'].eq('')
    return rows.assign(p=rows['p'].mask(alone, rows['model'].map(p)), test=rows['test'].mask(alone, 'maps by chance'))

def simulated_rows(a):
    "How much of G is in the network where the task is"
    o, aal2 = np.load(a.work/'simulated.npz'), load_parcellation('aal2')
    there = aal2.networks()=='Visual'
    r, beside = shares(o, there)
    rows = turn_rows(r, 'simulated', 'share', 'rest toward a visual task, share in Visual',
        f"simulated; {o['givers']} people give the direction", **beside)
    yield told(with_chance(rows, o, there, aal2), f"--only simulated --steps {o['steps']}", o)

def heat_rows(a):
    "Is G where the heat changes the signal of a person's other runs, and how much of it is in the insula?"
    mist = load_parcellation(a.cohorts.parent/'second'/'pain.tsv')
    insula = np.array(['INS' in n for n in mist.names])
    for name,words in (('rating-heat', 'rating toward heat'), ('weak-strong', 'weak heat toward strong heat')):
        o = np.load(a.work/f'heat-{name}.npz')
        data = 'heat pain, 122 regions the model has never seen; 16 people give the direction'
        how = f"--only heat-{name} --steps {o['steps']}", o
        own = turn_rows(agreed(o), 'real', 'r', f'{words}, beside own squared change in other runs', data)
        yield told(own, *how)
        r, beside = shares(o, insula)
        rows = turn_rows(r, 'real', 'share', f'{words}, share in the insula', data, **beside)
        yield told(with_chance(rows, o, insula, mist), *how)

def known_rows(a):
    "How well pushes find published networks, a row for each network, forecaster and number of frames"
    for f in sorted(a.work.glob('known-*.npz'), key=lambda f: [int(o) for o in f.stem.split('-')[1:]]):
        o, (_,k,frames,steps) = np.load(f), f.stem.split('-')
        names = ['BrainLM, trained longer'] if int(steps)>1200 else list(o['names'])
        t = pd.DataFrame(dict(value=o['odd'], n=380), names)
        ours = [n for n in names if 'BrainLM' in n]
        rows = result_rows(t, (), ours, kind='simulated', unit='ordered pairs', metric='r',
            task=f'pushes of a published network, {frames} frames', data=f'network {int(k)+1} of 3, 20 nodes')
        yield told(rows, f'--only {f.stem}', o)

def table(a):
    "The whole table, anew"
    parts = pushed, beta_rows, simulated_rows, heat_rows, known_rows
    found = [o for rows in parts for o in rows(a)]
    file.unlink(missing_ok=True)
    for rows,command in found: keep_results(file, rows, command)

def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('what', choices=['pack', 'run', 'trial', 'table'])
    p.add_argument('--work', type=Path, default=root/'runs'/'pushes', help='folder of arrays')
    p.add_argument('--data', type=Path, default=root/'.gpu'/'h3', help='folder of what is packed')
    p.add_argument('--cohorts', type=Path, default=root/'.gpu'/'first', help='folder of hcp.npz of tools/scaling.py')
    p.add_argument('--until', type=float, default=1e6, help='seconds after which nothing is begun')
    p.add_argument('--steps', type=int, default=60, help='of `optimise`')
    p.add_argument('--people', type=int, default=8, help='who are pushed')
    p.add_argument('--short', type=int, default=1200, help='steps of training on networks with known connections')
    p.add_argument('--long', type=int, default=6000, help='steps of the longer training')
    p.add_argument('--cpu', action='store_true', help='although there is a card')
    p.add_argument('--areas', type=int, default=360, help='that are pushed, the first ones')
    p.add_argument('--only', nargs='+', default=[], help='what is made, by name of its array')
    p.add_argument('--tasks', type=int, default=len(tasks), help='of HCP')
    a = p.parse_args(argv)
    a.device = 'cuda' if torch.cuda.is_available() and not a.cpu else 'cpu'
    a.each, a.cohort, a.part, a.at_once = 1, 90, 40, 4
    a.until += time.time()
    a.work.mkdir(parents=True, exist_ok=True)
    dict(pack=pack, run=run, trial=trial, table=table)[a.what](a)

if __name__=='__main__': main()
