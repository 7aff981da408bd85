"The measuring scripts run, at sizes that measure nothing, and so does what CONTRIBUTING.md shows"
import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import program

root = Path(__file__).resolve().parents[1]
tools = root/'tools'

def run(script, *args):
    r = program(tools/script, *args)
    assert r.returncode==0, f'{script} failed\n{r.stdout[-3000:]}{r.stderr[-3000:]}'
    return r.stdout

def test_bench(tmp_path):
    size = dict(n_parcels=6, width=8, decoder_width=8, mlp=8, decoder_mlp=8, layers=1, decoder_layers=1, heads=2, decoder_heads=2)
    out = run('bench.py', '--only', 'step', 'limits', 'store', '--size', json.dumps(size), '--batch', 2, '--steps', 1, '--threads', 1, '--recordings', 50, '--ingest', 4, '--dir', tmp_path, '--json', tmp_path/'out.json')
    results = json.loads((tmp_path/'out.json').read_text())
    assert [o['case'] for o in results['step']]==['joint','axial'] and all(o['peak_gb']>0 and len(o['seconds'])==1 for o in results['step'])
    assert {o['use'] for o in results['limits']}>={'training step', 'filling in', 'embedding', 'attention maps', "prior's Cholesky"}
    assert results['store']['recordings']==50 and results['store']['read_per_s']>0
    assert '| joint | 2 x 1 |' in out and 'published figure' not in out     # which is only of use beside the published sizes
    assert {o.name for o in tmp_path.iterdir()}=={'out.json'}, 'temporary folders were left'

def test_hcp_gpu_without_a_gpu(tmp_path):
    out = run('hcp_gpu.py', '--cpu', '--data', 'simulated', '--subjects', 4, '--json', tmp_path/'out.json')
    results = json.loads((tmp_path/'out.json').read_text())
    assert 'check of the script on the CPU' in out and results['data']=='simulated'
    assert set(results['r2'])=={f'{m} {r}' for m in ('gaussian','axial','joint') for r in (0.2,0.5,0.75)}
    assert results['joint']['gflop_per_window']['0.75']>results['axial']['gflop_per_window']['0.75']>0

def test_gpu_speed_without_a_gpu(tmp_path):
    "Two parts at toy size; matrix products are counted as PyTorch counts them, places left out"
    out = run('gpu_speed.py', '--cpu', '--out', tmp_path, '--only', 'peaks', 'equal')
    found = json.loads((tmp_path/'gpu_speed.json').read_text())
    assert 'nothing above is a result' in out and found['machine']['device']=='CPU, toy sizes'
    assert [r['within'] for r in found['equal']['rows']]==[True, True] and found['peaks']['bf16']>0
    lines = (tmp_path/'gpu_speed.tsv').read_text().splitlines()
    assert lines[0]=='section\twhat\tmeasure\tvalue\tdevice\tdate' and len({len(l.split('\t')) for l in lines})==1
    code = '''import torch, gpu_speed as g
from torch.utils.flop_counter import FlopCounterMode
for attention in ('joint', 'axial'):
    c = g.preset('tiny', n_parcels=24, n_time=80, attention=attention, layers=3)
    model, x = g.new_model(c, torch.device('cpu')), torch.randn(1, 24, 80)
    places = 2*24*33*(c.width+c.decoder_width)
    with g.sdpa_kernel([g.SDPBackend.MATH]), FlopCounterMode(display=False) as f: loss = model(x, mask_ratio=.75).loss
    assert f.get_total_flops()==g.products(c)[0]+places
    with g.sdpa_kernel([g.SDPBackend.MATH]), FlopCounterMode(display=False) as f: model(x, mask_ratio=.75).loss.backward()
    assert f.get_total_flops()==g.products(c)[1]+2*places'''
    r = program(code, cwd=tools)
    assert r.returncode==0, r.stderr

def test_calibration_goes_on(tmp_path):
    first = run('calibration.py', 'run', 'number', '-n', 1, '--runs', tmp_path)
    assert run('calibration.py', 'run', 'number', '-n', 1, '--runs', tmp_path)==''      # it is there
    said = json.loads((tmp_path/'number.jsonl').read_text())
    assert first.startswith('number') and said['seed']==0 and said['said']=={'BrainLM is better than mean': False}

def test_hcp_folds_go_on(tmp_path):
    "A piece of made-up people, and the table of what is there"
    from brainlm.evidence import read_kept
    where = ('--data', 'simulated', '--runs', tmp_path/'runs', '--tables', tmp_path/'tables', '--out', tmp_path/'out.tsv')
    small = {k: 8 for k in ('width', 'mlp', 'decoder_width', 'decoder_mlp')} | dict(heads=2, decoder_heads=2, layers=1, decoder_layers=1)
    piece = (*where, '--fold', 1, '--seed', 0, '--epochs', 2, '--plain', '--size', json.dumps(small), '--every', 2, '--rivals', 'mean', 'gaussian', 'window')
    assert run('hcp_folds.py', *piece, '--budget', 0).strip()==''                       # no time, nothing is begun
    run('hcp_folds.py', *piece)
    assert run('hcp_folds.py', '--plan', '--fold', 1, '--seed', 0, *where)=='all is there\n'
    t = read_kept(tmp_path/'out.tsv')
    assert set(t.kind)=={'simulated'} and t.data.str.contains('1 of 5 folds, 1 of 3 seeds').all()
    assert {'gaussian', 'AR ridge', 'FC', 'BrainLM, not trained'}<=set(t.rival) and set(t.says)>={'too few'}

def test_scaling_at_toy_size(tmp_path):
    "Kept guesses are those of a live prior, and kept scores those of `evaluate`"
    said = run('scaling.py', 'trial', '--work', tmp_path)
    assert 'kept guesses and scores are those of a live prior' in said
    names = {o.name for o in (tmp_path/'runs').glob('*.tsv')}
    assert names>={'toy-tiny-steps10-flipTrue.tsv', 'toy-tiny-steps10-people4-priornone.tsv', 'toy-mean.tsv'}
    assert 'toy-tiny-steps2: no graphs' in said and 'chosen among' in said

rooms = dict(store='def read(rows): return rows\n',
             report="""from .store import read
from . import store as s
def page(data, title):
    rows = read(data)
    draw(title)
    draw(rows)
    return s.read(rows=data)
def draw(x): return read(x)
""")

def test_house(tmp_path):
    for d in ('brainlm', 'nbs'): (tmp_path/d).mkdir()
    for i,(room,text) in enumerate(rooms.items()):
        (tmp_path/'brainlm'/f'{room}.py').write_text(text)
        cell = dict(cell_type='code', id='a', source=f'#| default_exp {room}')
        (tmp_path/'nbs'/f'{i}_{room}.ipynb').write_text(json.dumps(dict(cells=[cell])))
    walk = lambda *args: run('house.py', '--root', tmp_path, *args, '--walk', 'report:page:data').splitlines()
    itself,made = walk()
    assert itself.endswith('2 stops in 2 rooms, 0 times up: report.page > store.read')
    assert made.endswith('4 stops in 2 rooms, 1 times up: report.page > store.read > report.draw > store.read')
    out = run('house.py', '--only', 'lines', 'cells', 'names', 'walks')
    assert 'joined statements' in out and 'pretraining:pretrain_learner:store and what is made from it' in out

# What CONTRIBUTING.md shows

additions = re.findall(r'```python\n(.*?)```', (root/'CONTRIBUTING.md').read_text(encoding='utf-8'), re.S)

@pytest.mark.parametrize('n', range(5))
def test_an_addition(n):
    "In a process of its own: what it registers stays there"
    r = program(additions[n])
    assert r.returncode==0, f'{additions[n]}\n{r.stderr[-3000:]}'
    registered = re.search(r"@register\((\w+), '", additions[n])[1]
    assert registered==['parcellations', 'forecasters', 'readouts', 'analyses', 'formats'][n]


def test_first_contact_with_published_weights(tmp_path, monkeypatch, capsys):
    "A folder of the 13M family, and one that is refused; people at rest are noise here"
    import torch
    from fastcore.basics import AttrDict
    from safetensors.torch import save_file

    from brainlm.published import PublishedMAE, _mae_defaults
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]/'tools'))
    import check_published as tool
    size = {p+k: n for p in ('', 'decoder_') for k,n in dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16).items()}
    c = AttrDict({**_mae_defaults, **size, 'num_brain_voxels': 424, 'num_timepoints_per_voxel': 200, 'timepoint_patching_size': 20, 'mask_ratio': .9})
    torch.manual_seed(0)
    (tmp_path/'m').mkdir()
    (tmp_path/'m'/'config.json').write_text(json.dumps(c))
    save_file(dict(PublishedMAE(c).state_dict()), tmp_path/'m'/'model.safetensors')
    rng = np.random.default_rng(0)
    series = [(np.where(np.arange(424)<360, rng.standard_normal((220, 424)), np.nan), .72) for _ in range(2)]
    monkeypatch.setattr(tool, 'people', lambda n: series)
    said = tool.main([str(tmp_path/'m'), '--out', str(tmp_path/'m.json')])
    assert json.loads((tmp_path/'m.json').read_text())==json.loads(json.dumps(said)) and {*said['r2']}=={'0.1','0.3','1.0','3.0','10.0'}
    assert said['n_keys']==len(said['keys']) and said['spread']>0 and 'at no scale' in said['verdict'] and 'vit.layernorm.weight [16]' in capsys.readouterr().out
    assert 'refused' in tool.main([str(tmp_path/'none'), '--out', str(tmp_path/'n.json')])['verdict']

def test_a_taste_of_the_fuzz(tmp_path):
    "Bytes turned in a table and in a store: an answer each, a line in the log, and the log goes on"
    pytest.importorskip('hypothesis', reason="tools/fuzz.py needs hypothesis, which is not here: pip install 'brainlm[dev]'")
    log = tmp_path/'log.tsv'
    out = run('fuzz.py', '--target', 'text', 'store', '--seeds', 1, '--examples', 3, '--log', log)
    rows = log.read_text().splitlines()
    assert len(rows)==3 and 'faults 0' in out
    assert run('fuzz.py', '--target', 'text', 'store', '--seeds', 1, '--examples', 3, '--log', log)==''

def test_the_small_model_is_made_the_same_twice(tmp_path):
    "A toy of it on simulated recordings, all steps, in two folders: the same files of weights, and nobody who is left out was seen"
    for o in 'ab': run('make_small.py', '--simulated', '--work', tmp_path/o, '--out', tmp_path/o/'model')
    files = sorted(o.relative_to(tmp_path/'a') for o in (tmp_path/'a/model').rglob('*.safetensors'))
    assert len(files)==6
    for o in files: assert (tmp_path/'a'/o).read_bytes()==(tmp_path/'b'/o).read_bytes(), o
    card = json.loads((tmp_path/'a/model/card.json').read_text())
    assert card['training']['preset']=='nano' and len(card['chosen'])==2 and {o['model'] for o in card['scores']}=={'BrainLM', 'BrainLM + context'}

def test_heads_are_compared(tmp_path):
    "From pieces that are there: a row for each way and one for each comparison; a way that is better is found"
    import pandas as pd

    from brainlm.evidence import read_kept
    rng = np.random.default_rng(0)
    ways = ['closed form', 'closed form, encoder not trained', 'LoRA', 'all weights', 'CLS, all weights']
    for k in range(5):
        y = rng.standard_normal(20)
        noise = {w: y+(.1 if w=='LoRA' else .5)*rng.standard_normal(20) for w in ways}
        pd.DataFrame(noise | dict(person=range(20), truth=y, fold=k, label='lag 1')).to_csv(tmp_path/f'{k}-lag 1.csv', index=False)
    run('heads.py', '--labels', 'lag 1', '--work', tmp_path, '--out', tmp_path/'out.tsv')
    t = read_kept(tmp_path/'out.tsv')
    assert t['rival'].eq('').sum()==5 and set(t[t['rival'].ne('')]['model'])=={'LoRA', 'all weights', 'CLS, all weights'}
    assert t[t['rival'].ne('')].set_index('model')['says']['LoRA']=='better'

# Jobs of a cluster, with stand-ins for what a cluster brings

stand_ins = dict(srun='for ((i=0; i<SLURM_JOB_NUM_NODES; i++)); do "$@"; done', scontrol='echo ${3//,/ } | tr " " "\\n"', torchrun='echo torchrun "$@"')

@pytest.fixture
def cluster(tmp_path):
    "Calls a script as a job of two nodes"
    for name,words in stand_ins.items():
        (tmp_path/name).write_text(f'#!/bin/bash\n{words}\n')
        (tmp_path/name).chmod(0o755)
    job = dict(PATH=f"{tmp_path}:{os.environ['PATH']}", SLURM_JOB_NUM_NODES='2', SLURM_JOB_NODELIST='n1,n2', SLURM_JOB_ID='7', SLURM_CPUS_PER_TASK='8')
    def call(script, *args, **env):
        return subprocess.run(['bash', str(tools/'slurm'/script), *args], capture_output=True, text=True, env=os.environ | job | env, cwd=tmp_path, stdin=subprocess.DEVNULL)
    return call

def test_a_training_on_several_nodes(cluster, tmp_path):
    "Each node is told the first one, and a job that comes back goes on"
    env = dict(STORES='a b:2', RUN='run', SLURM_GPUS_ON_NODE='4')
    said = cluster('pretrain.sbatch', '--epochs', '3', **env).stdout.splitlines()
    how = 'torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-id 7 --rdzv-endpoint n1:29500 --no-python'
    assert said==[f'{how} brainlm pretrain a b:2 --out run --epochs 3']*2
    (tmp_path/'run').mkdir()
    (tmp_path/'run'/'checkpoint.pt').touch()
    assert '--out run --resume --epochs 3' in cluster('pretrain.sbatch', '--epochs', '3', **env).stdout
    assert 'RUN: folder of the run' in cluster('pretrain.sbatch', STORES='a').stderr

def test_a_job_for_each_line(cluster, tmp_path):
    (tmp_path/'lines').write_text('echo one\necho "two words"\n')
    assert cluster('each.sbatch', 'lines', SLURM_ARRAY_TASK_ID='2').stdout=='echo "two words"\ntwo words\n'
    r = cluster('each.sbatch', 'lines', SLURM_ARRAY_TASK_ID='3')
    assert r.returncode==2 and 'found no line 3, expected a command' in r.stderr

def test_scaling_law_at_toy_size(tmp_path):
    "A law that was put in is found, and every training leaves its rows"
    from brainlm.evidence import read_kept
    assert 'nothing' not in (said := run('scaling_law.py', 'trial', '--work', tmp_path, '--steps', 4)) and 'No CUDA card' in said
    t = read_kept(tmp_path/'scaling_law.tsv')
    assert set(t.kind)=={'simulated'} and 'exponent of people' in set(t.metric) and len(t.query("rival!=''"))==5
