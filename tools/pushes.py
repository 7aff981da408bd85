"""Pushes and turns of the shipped model, on data whose answer is known or measured elsewhere. Quick on a CUDA card.

    python tools/pushes.py pack          # where the data are: task betas of HCP
    python tools/pushes.py run           # arrays in the work folder, each made once
    python tools/pushes.py trial         # a little of it, on a CPU, in a work folder of its own
    python tools/pushes.py table         # nbs/results/responses.tsv, of the arrays in the work folder

`--only` names what is made. These make what stands in the table now, the first two on a CPU, the third on an H200:
    run --only respond --people 1 --areas 100
    run --only betas-motor-tongue betas-wm_2back-faces betas-language-story --steps 25
    run --only simulated

`respond`: each of 360 areas is pushed by 1 IQR in 8 people whom the model has not seen, with the network and with its
prior alone. `turn`: what must change for rest to look like a task (`brainlm.perturbation.optimise`) in simulated
people, where the task is planted in Visual, and in HCP rest to which the people's own task betas are added in
blocks. `longer`: networks whose connections are known, pushed after more steps of training than page 42a takes."""
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

from brainlm.atlas import Parcellation, load_parcellation
from brainlm.basics import write_whole
from brainlm.datasets import fetch_connectome, fetch_hcp_rest
from brainlm.evidence import keep_results, result_rows
from brainlm.maps import compare_matrices
from brainlm.model import BrainLM
from brainlm.perturbation import apart, direction, optimise, ridge_partial_correlation, var_step
from brainlm.recordings import RecordingStore
from brainlm.responses import answers, folded_network, folded_series, push_halves, step_windows
from brainlm.scaling import RobustScaler
from brainlm.simulation import simulate_cohort
from brainlm.stats import mean_interval, verdicts

root = Path(__file__).resolve().parents[1]
tasks = ('emotion:fear', 'gambling:win', 'language:story', 'motor:tongue', 'relational:relation', 'social:mental',
    'wm_2back:faces')

def pack(a):
    "Task betas of the people of HCP rest, and networks with known connections"
    from brainlm.datasets import fetch_hcp_task_betas, fetch_npi
    got = fetch_hcp_task_betas()
    beta = got.beta[:,[got.conditions.index(t) for t in tasks]]
    a.data.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(a.data/'betas.npz', beta=beta.astype('float16'), subjects=got.subjects)
    known = {f'{w}{k}': o[n] for k,o in enumerate(fetch_npi()) for w,n in (('x', 'series'), ('e', 'effective'))}
    np.savez_compressed(a.data/'npi.npz', **known)

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

@torch.no_grad()
def respond(a, seeds):
    "What a push of each area by 1 IQR changes, in its own 20 frames and in the next: mean over people [seed, parcel]"
    model = BrainLM.from_pretrained('brainlm-small').to(a.device)
    x, seen, _ = hcp_windows(a)
    x, said = x[torch.as_tensor(~seen)][:a.people], {}
    plain = model._prior_guess
    def guess(*args):
        said['prior'] = plain(*args)
        return said['prior']
    model._prior_guess = guess
    out = dict(seeds=np.array(seeds), people=len(x))
    out |= {k: np.full((len(seeds), 360), np.nan, 'float32') for k in ('now', 'next', 'prior_now', 'prior_next')}
    for i,p in enumerate(seeds):
        y, mask = x.clone(), torch.zeros(len(x), 360, 10, dtype=torch.bool, device=a.device)
        y[:,p,160:180] += 1
        mask[:,:,8:] = True
        mask[:,p,8] = False
        both = model(torch.cat([x, y]), mask=torch.cat([mask, mask])).prediction
        for k,o in (('', both), ('prior_', said['prior'])):
            change = (o[len(x):]-o[:len(x)])[:,:,8:].mean((0, 3))
            out[f'{k}now'][i], out[f'{k}next'][i] = change.T.cpu().numpy()
    return out

# What must change

def untrained(model):
    "A network of the same shape that has learned nothing"
    torch.manual_seed(0)
    c = replace(model.config, prior='none')
    return BrainLM(c, model.parcellation, model.scaler).to(model.cls.device).eval()

def turned(a, models, first, second, takers):
    "Energy [person, parcel] of the change from a condition toward another, and what is left of the distance"
    out = {}
    for name,m in models.items():
        shift = direction(m, first, second, 'tokens')
        r = optimise(m, takers, shift, latent='tokens', steps=a.steps, batch_size=32)
        far = apart(m, takers, shift, 'tokens', batch_size=32)
        out |= {f'{name}_energy': r.energy, f'{name}_left': r.distance, f'{name}_far': far}
    power = second.var(-1).mean(0)-first.var(-1).mean(0)
    mean = second.mean((0, 2))-first.mean((0, 2))
    return out | dict(power=power.abs().cpu().numpy(), mean=mean.abs().cpu().numpy())

def pair_of(model): return dict(trained=model, untrained=untrained(model))

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
    found = turned(a, pair_of(model), found['rest'][:n], found['visual'][:n], found['rest'][n:])
    return found | dict(givers=n)

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
    found = turned(a, pair_of(model), x[give], both[give], x[take])
    return found | dict(truth=beta[~seen]**2, others=beta[seen]**2)

# Networks whose connections are known

def published(a, k, frames):
    "Agreement of BrainLM with a published network, after longer training"
    got = np.load(a.data/'npi.npz')
    x, truth = got[f'x{k}'][:frames].astype(float), got[f'e{k}']
    t = answers(x, truth, names=['BrainLM'], steps=a.long, seed=k, device=a.device)
    return dict(odd=t['odd'].to_numpy())

def folded(a, k, frames):
    "The same with a network of which a linear map sees half"
    net = folded_network(np.random.default_rng(k))
    x = folded_series(net, frames, np.random.default_rng(1000+k))
    truth = push_halves(net, step_windows(x)[0][:2000], x.std(0).mean())
    t = answers(x, *truth, names=['BrainLM'], steps=a.long, seed=k, device=a.device)
    return dict(odd=t['odd'].to_numpy(), even=t['even'].to_numpy())

def run(a):
    "All of it"
    jobs = dict(respond=lambda: respond(a, range(0, a.areas, a.each)), simulated=lambda: simulated(a))
    jobs |= {f'betas-{t.replace(":", "-")}': lambda t=t: with_betas(a, t) for t in tasks[:a.tasks]}
    each = (published, 8000), (folded, 8000), (published, 2000), (published, 500)
    there = (a.data/'npi.npz').exists()     # else networks of our own alone
    longer = [(f, k, n) for f,n in each for k in range(3) if there or f is folded]
    jobs |= {f'{f.__name__}-{k}-{n}': lambda f=f, k=k, n=n: f(a, k, n) for f,k,n in longer}
    for name,make in jobs.items():
        if time.time()<a.until and (not a.only or name in a.only): kept(a, name, make)

def trial(a):
    "All of it, at a size that measures nothing"
    a.work = a.work.with_name(f'{a.work.name}-trial')
    a.work.mkdir(parents=True, exist_ok=True)
    a.steps, a.people, a.each, a.cohort, a.tasks, a.long = 2, 1, 180, 6, 1, 10
    run(a)

# What is kept of it

file = root/'nbs'/'results'/'responses.tsv'

def where(o): return f"on {'an' if str(o['device']).startswith('NVIDIA H') else 'a'} {o['device']}"

def told(rows, how, *arrays):
    "Rows, and the command that made their arrays, with the machine"
    return rows, f"python tools/pushes.py run {how} ({', '.join(sorted({where(o) for o in arrays}))}), then table"

def matrices(o):
    "Ours, from row to column, of the areas that were pushed; the linear ones of 30 people at rest"
    seeds = o['seeds']
    ours = {}
    for who,key in (('brainlm-small', ''), ('its prior alone', 'prior_')):
        for frames,name in (('same', 'now'), ('next', 'next')):
            ours[f'push of {who}, {frames} 20 frames'] = m = o[key+name][:,seeds]
            np.fill_diagonal(m, 0)
    x = [r.signal for r in fetch_hcp_rest()]
    linear = {'VAR(1) step': var_step(x, ridge=.1), 'partial correlation': ridge_partial_correlation(x)}
    return ours | {k: m[np.ix_(seeds, seeds)] for k,m in linear.items()}

def pushed(a):
    "Pushes beside fibres and effective connectivity, a row for each and one for what chance gives it"
    o = np.load(a.work/'respond.npz')
    theirs = {'fibres of 207 people': 'structural', 'effective connectivity of 800 people': 'effective'}
    theirs = {k: fetch_connectome(n).matrix[np.ix_(o['seeds'], o['seeds'])] for k,n in theirs.items()}
    areas = load_parcellation('glasser360').table.iloc[o['seeds']].reset_index(drop=True)
    sides = ' and '.join(dict(L='left', R='right')[s] for s in sorted(set(areas['hemisphere'])))
    people = 'one unseen person' if o['people']==1 else f"{o['people']} unseen people"
    found = compare_matrices(matrices(o), theirs, Parcellation('pushed areas', areas)).reset_index()
    for (other,part),t in found.groupby(['theirs', 'part'], sort=False):
        t = t.set_index('ours').assign(n=len(areas))
        chance = t[['expected', 'low', 'high', 'n']].rename(columns=dict(expected='value'))
        t, chance = t[['r', 'n', 'p', 'q']].rename(columns=dict(r='value')), chance.rename('chance: {}'.format)
        ours = [k for k in t.index if 'brainlm' in k]
        rows = result_rows(pd.concat([t[['value', 'n']], chance]), (), ours, chance.index, unit='areas',
            metric='r', task=f'pushes at rest beside {other}, {part} part',
            data=f"HCP rest, {len(areas)} areas ({sides}), pushed in {people}; linear: of 30 people")
        facts = rows['model'].map(t['p']), rows['model'].map(t['q'])
        test = np.where(facts[0].notna(), 'matrices by chance', '')
        rows = rows.assign(p=facts[0], p_family=facts[1], family=facts[0].notna().map({True: len(found)}), test=test)
        yield told(rows, f"--only respond --people {o['people']} --areas {len(areas)}", o)

def means(maps): # name: [person]
    "Mean and interval of each"
    rows = {k: (x.mean(), *mean_interval(x), len(x)) for k,x in maps.items()}
    return pd.DataFrame(rows, ['value', 'low', 'high', 'n']).T

def beta_rows(a):
    "Is G where the own betas are? Mean over tasks of Spearman's r in each person"
    files = sorted(a.work.glob('betas-*.npz'))
    arrays, r = [np.load(f) for f in files], {}
    for o in arrays:
        n = len(o['truth'])
        maps = {'brainlm-small': o['trained_energy'], 'untrained': o['untrained_energy']}
        maps['change of variance'] = np.tile(o['power'], (n, 1))
        maps['betas of other people'] = np.tile(o['others'].mean(0), (n, 1))
        for k,m in maps.items(): r.setdefault(k, []).append([spearmanr(x, y)[0] for x,y in zip(m, o['truth'])])
    r = {k: np.mean(v, 0) for k,v in r.items()}
    found = verdicts({k: r['brainlm-small']-r[k] for k in r if k!='brainlm-small'}, 'brainlm-small', 'r')
    data = f"HCP rest with own betas of {len(files)} tasks in blocks; {len(o['others'])} people give the direction"
    rows = result_rows(means(r), found, ['brainlm-small'], ['untrained'], kind='semi-synthetic', metric='r', data=data,
        task='where G changes rest toward a task, beside own squared betas')
    yield told(rows, f"--only {' '.join(f.stem for f in files)} --steps {o['steps']}", *arrays)

def simulated_rows(a):
    "How much of G is in the network where the task is"
    o = np.load(a.work/'simulated.npz')
    there, givers = load_parcellation('aal2').networks()=='Visual', int(o['givers'])
    def share(e): return e[...,there].sum(-1)/e.sum(-1)
    shares = {'brainlm-small': share(o['trained_energy']), 'untrained': share(o['untrained_energy'])}
    t = means(shares)
    t.loc['change of variance'] = share(o['power']**2), np.nan, np.nan, givers
    found = verdicts({'untrained': shares['brainlm-small']-shares['untrained']}, 'brainlm-small', 'share')
    rows = result_rows(t, found, ['brainlm-small'], ['untrained'], kind='simulated', metric='share',
        data=f'simulated; {givers} people give the direction',
        task='where G changes rest toward a visual task, share in Visual')
    yield told(rows, f"--only simulated --steps {o['steps']}", o)

def table(a):
    "The whole table, anew"
    found = [*pushed(a), *beta_rows(a), *simulated_rows(a)]
    file.unlink(missing_ok=True)
    for rows,command in found: keep_results(file, rows, command)

def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('what', choices=['pack', 'run', 'trial', 'table'])
    p.add_argument('--work', type=Path, default=root/'runs'/'pushes', help='folder of arrays')
    p.add_argument('--data', type=Path, default=root/'.gpu'/'h6', help='folder of the betas')
    p.add_argument('--cohorts', type=Path, default=root/'.gpu'/'first', help='folder of hcp.npz of tools/scaling.py')
    p.add_argument('--until', type=float, default=1e6, help='seconds after which nothing is begun')
    p.add_argument('--steps', type=int, default=60, help='of `optimise`')
    p.add_argument('--people', type=int, default=8, help='who are pushed')
    p.add_argument('--long', type=int, default=6000, help='steps of training of a network with known connections')
    p.add_argument('--areas', type=int, default=360, help='that are pushed, the first ones')
    p.add_argument('--only', nargs='+', default=[], help='what is made, by name of its array')
    p.add_argument('--tasks', type=int, default=len(tasks), help='of HCP')
    a = p.parse_args(argv)
    a.device, a.each, a.cohort = 'cuda' if torch.cuda.is_available() else 'cpu', 1, 90
    a.until += time.time()
    a.work.mkdir(parents=True, exist_ok=True)
    dict(pack=pack, run=run, trial=trial, table=table)[a.what](a)

if __name__=='__main__': main()
