"""Published weights from an fMRIPrep-like folder to embeddings, to a fine-tuned model and to every analysis, from the
command line. People, image and weights are simulated and small; one parcel is uncovered, units are those of no scanner,
and a frame takes 0.8 s."""
import json
from functools import partial

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from fastcore.basics import AttrDict
from safetensors.torch import load_file, save_file

import brainlm.networks as networks
from brainlm.atlas import load_parcellation
from brainlm.baselines import forecasters
from brainlm.cli import main
from brainlm.embedding import BrainLMEmbedder
from brainlm.networks import attention_matrix, attention_profiles, profile_versions
from brainlm.published import PublishedMAE, PublishedViTMAE, load_model
from brainlm.readouts import readouts
from brainlm.recordings import Recording, RecordingStore
from brainlm.scaling import RobustScaler
from brainlm.simulation import simulate_bids_derivatives

slow = pytest.mark.slow
PEOPLE = 20
LOST = 404                                                                  # a single voxel in the published image


def weights(folder, kind):
    "A folder as the authors' hub has it, very small: `old_13M`, `vitmae` or `age`"
    c = dict.fromkeys(('hidden_size','intermediate_size','decoder_hidden_size','decoder_intermediate_size'), 8)
    c |= dict.fromkeys(('num_hidden_layers','num_attention_heads','decoder_num_hidden_layers',
                        'decoder_num_attention_heads'), 1)
    mae = dict(num_brain_voxels=424, num_timepoints_per_voxel=200, timepoint_patching_size=20, mask_ratio=.2,
               loss_fn='mse', use_tanh_decoder=False, conv_kernel_size=65, patch_size=16, num_channels=3)
    c |= mae if kind=='old_13M' else dict(patch_size=16, image_size=[432,432], mask_ratio=.75)
    made, own = (PublishedMAE, {}) if kind=='old_13M' else (PublishedViTMAE, dict(finetuned=kind=='age'))
    torch.manual_seed(0)
    folder.mkdir()
    (folder/'config.json').write_text(json.dumps(c))
    state = made(AttrDict(c, **own)).state_dict()
    save_file({k: v.contiguous() for k,v in state.items()}, folder/'model.safetensors')


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    "A folder with images of twenty people, a store made of them by one command, and three models"
    top, a, rng = tmp_path_factory.mktemp('use'), load_parcellation('a424'), np.random.default_rng(0)
    labels = np.zeros(9*10*10, int)
    labels[:848] = np.repeat(np.arange(1, 425), 2)
    image = nibabel.Nifti1Image(labels.reshape(9, 10, 10).astype('int16'), np.diag([18.,18,18,1]))
    nibabel.save(image, top/'labels.nii.gz')
    def person(i):
        x = rng.standard_normal((200, 424))
        x[:,:180] += x[:,180:360]
        x = (x-x.mean(0))/x.std(0)
        return Recording(x.astype('float32'), .8, f's{i}', task='rest', provenance='simulated',
                         covariates=dict(age=40.+i, half='ab'[i%2]))
    simulate_bids_derivatives(top/'fmriprep', [person(i) for i in range(PEOPLE)], image, a, uncovered={a.names[LOST]: 1.},
                              voxel_noise=.2)
    for kind in ('old_13M','vitmae','age'): weights(top/f'my_{kind}', kind)
    with pytest.MonkeyPatch.context() as mp:
        mp.chdir(top)
        assert main(['preprocess', 'fmriprep', 'store', '--volume', 'labels.nii.gz', '--strategy', 'none'])==0
    return top


def test_what_the_first_command_made(place):
    "One parcel is missing, and the units are those of the images"
    s = RecordingStore(place/'store')
    assert len(s)==PEOPLE and set(s.table['n_missing'])=={1} and set(s.table['tr_s'])=={.8}
    assert .3<np.nanmedian(np.nanstd(s.read(0), 0))<3


@pytest.fixture
def there(place, coarse_cortex, monkeypatch):
    "Commands run in the folder; the simple rival is the one that takes no time, and so are the folds of networks"
    monkeypatch.chdir(place)
    quick = partial(networks.every_atlas, n_repeats=1)
    monkeypatch.setattr(networks, 'every_atlas', quick)
    monkeypatch.setattr(networks, 'network_atlases', ['yeo7'])
    monkeypatch.setattr(networks, '_most_alone', 3)
    monkeypatch.setattr(networks, 'classify_parcels', partial(networks.classify_parcels, transforms=['raw']))
    monkeypatch.setattr(type(readouts), 'quick', lambda self, classify: ['mean'])
    monkeypatch.setattr(type(forecasters), 'quick', lambda self: ('mean',))
    return place


def run(words, **names): return main(words.format(**names).split())


@pytest.mark.parametrize('kind', [pytest.param('old_13M', marks=slow), 'vitmae', pytest.param('age', marks=slow)])
def test_to_embeddings(there, kind, capsys):
    "The scale of UK Biobank is refused with the remedy; with it, what was done is in the words and in the file"
    assert run('embed store {k}.parquet --model my_{k}', k=kind)==1
    assert 'scaler' in capsys.readouterr().err
    assert run('embed store {k}.parquet --model my_{k} --scaler fit', k=kind)==0
    said = capsys.readouterr().out
    assert 'rule: zero' in said and 'brought to 0.735 s' in said
    t = pd.read_parquet(f'{kind}.parquet')
    assert len(t)==PEOPLE and set(t['missing'])=={load_parcellation('a424').names[LOST]}
    assert np.isfinite(t.filter(like='brainlm').to_numpy()).all() and t.attrs['brainlm']['precision']=='fp32'


KINDS = 'old_13M', 'vitmae', 'age'


@pytest.mark.parametrize('kind', [pytest.param('old_13M', marks=slow), 'vitmae', pytest.param('age', marks=slow)])
def test_to_fine_tuned_models(there, kind, capsys):
    "Head alone, last layers, low-rank updates, everything; CLS, means, covariance; side by side on a page"
    begin = 'finetune store --model my_{k} --scaler fit --epochs 1 --valid .2 --test .2 --target age '
    ways = dict(none='cls', last='mean', lora='covariance', all='cls')
    for how,pooling in ways.items():
        assert run(begin+f'--unfreeze {how} --pooling {pooling} --out {kind}_{how}', k=kind)==0, capsys.readouterr().err
    assert 'CC BY-NC-ND' in capsys.readouterr().out
    assert run('compare '+' '.join(f'{kind}_{how}' for how in ways)+' --out {k}.html', k=kind)==0
    said = (there/f'{kind}_lora/report.html').read_text(encoding='utf-8')
    assert f'{PEOPLE} of {PEOPLE} recordings were resampled to 0.735 s' in said
    assert (there/f'{kind}.html').stat().st_size>1000


analyses = dict(
    zero_shot='forecast store --context 180 --horizon 20 --valid .2 --test .2',
    forecast='forecast store --context 180 --horizon 20 --valid .2 --test .2 --epochs 1',
    networks='networks store --permutations 3',
    attention='attention store --contrast half --permutations 20',
    perturb='perturb store --column half --source a --target b --steps 2 --seed 1')


def test_a_missing_parcel_takes_no_other_with_it(there):
    "Attention of a published kind has no row of it: all others take part in networks"
    m, s = load_model('my_vitmae', scaler='fit'), RecordingStore('store')
    m.scaler = RobustScaler().fit(s, rows='all')
    x = profile_versions(attention_profiles(attention_matrix(m, s, [0])), ['raw'])['raw']
    assert np.flatnonzero(~np.isfinite(x).all(1)).tolist()==[LOST]


def takes_long(name, kind): return (name,kind)!=('zero_shot','age') and (kind!='vitmae' or name in ('networks','forecast'))


@pytest.mark.parametrize('name,kind', [pytest.param(n, k, marks=[slow]*takes_long(n, k)) for n in analyses for k in KINDS])
def test_every_analysis(there, kind, name, capsys):
    "To the end, or one line that says why this kind cannot"
    code = run(analyses[name]+' --model my_{k} --scaler fit --out {k}_{n}', k=kind, n=name)
    out, err = capsys.readouterr()
    if kind=='age' and 'forecast' in analyses[name]:
        assert code==1 and 'cannot forecast: it was fine-tuned' in err
        return
    assert code==0, err
    page = (there/f'{kind}_{name}/report.html').read_text(encoding='utf-8')
    assert 'CC BY-NC-ND' in page and '0.735' in page


@pytest.mark.parametrize('kind', ['vitmae', pytest.param('old_13M', marks=slow)])
def test_the_cortex_of_the_atlas_by_command(there, kind, capsys):
    "Glasser 360: 64 parcels are missing under the rule; any other atlas is refused with the reason"
    rng, made = np.random.default_rng(1), dict(glasser360=360, aal2=94)
    for name,n in made.items():
        if (there/name).exists(): continue
        RecordingStore.create(there/name, load_parcellation(name)).extend(
            Recording(rng.standard_normal((200, n)).astype('float32'), .8, f's{i}', provenance='simulated',
                      covariates=dict(age=40.+i)) for i in range(10))
    embed, tune = 'embed {s} {k}.parquet --model my_{k} --scaler fit', (
        'finetune {s} --model my_{k} --scaler fit --epochs 1 --valid .2 --test .2 --target age '
        '--unfreeze none --out {s}_{k}')
    assert run(embed, s='glasser360', k=kind)==0 and run(tune, s='glasser360', k=kind)==0
    assert set(pd.read_parquet(f'{kind}.parquet')['n_missing'])=={64}
    assert '10 recordings lack parcels, up to 64 (rule: zero)' in capsys.readouterr().out
    for words in (embed, tune):
        assert run(words, s='aal2', k=kind)==1
        assert 'made up' in capsys.readouterr().err


def embedder(place, **options):
    "Of the smallest published kind, in the scale of what it is fitted to"
    return BrainLMEmbedder(load_model(place/'my_vitmae', scaler='fit'), scaler='fit', device='cpu', **options)


def test_what_is_given_to_the_embedder(place):
    "Numbers of every kind give the same features; what is no recording is refused with its name"
    s = RecordingStore(place/'store')
    x = [s.read(i) for i in range(2)]
    e = embedder(place).fit(x)
    want = e.transform(x)
    with torch.autocast('cpu', torch.bfloat16): assert np.array_equal(e.transform(x), want)
    tensors = [torch.tensor(o, requires_grad=True) for o in x]
    assert np.allclose(e.transform(tensors), want, atol=1e-6) and np.isfinite(
        e.transform([torch.tensor(x[0]-x[0].mean(0)).bfloat16()])).all()
    holes = x[0].copy()
    holes[3,5] = np.inf
    assert np.isfinite(e.transform([holes])).all()
    for dt in (np.float32(.8), np.array(.8)): assert np.isfinite(embedder(place, tr_s=dt).fit_transform(x)).all()
    for bad in (None, 3, {'a': x[0]}):
        for f in (e.transform, embedder(place).fit):
            with pytest.raises(ValueError, match=f'X: found {type(bad).__name__}'): f(bad)
    with pytest.raises(ValueError, match='recording 1: found shape'): embedder(place).fit([x[0], x[1][:,:300]])
    with pytest.raises(ValueError, match="bf16: found 'yes'"): embedder(place, bf16='yes').fit(x)


@pytest.mark.parametrize('change,says', [
    (lambda m: m.half(), 'found weights in float16'),
    (lambda m: m.to('meta'), 'without weights')])
def test_a_network_that_is_not_held_in_fp32(place, change, says):
    e = embedder(place)
    change(e.model)
    with pytest.raises(ValueError, match=says): e.fit([np.ones((200, 424))])


def spoilt(place, folder, change, bin=False):
    "The published kind with its weights changed"
    folder.mkdir()
    (folder/'config.json').write_bytes((place/'my_vitmae/config.json').read_bytes())
    w = change(load_file(place/'my_vitmae/model.safetensors'))
    torch.save(w, folder/'pytorch_model.bin') if bin else save_file(w, folder/'model.safetensors')
    return folder


def of_all(f): return lambda w: {k: f(v) for k,v in w.items()}
def renamed(f): return lambda w: {f(k): v for k,v in w.items()}


@pytest.mark.parametrize('change,bin,says', [
    (of_all(lambda v: v.double()*1e300), False, 'NaN or infinite'),
    (of_all(lambda v: v.to_sparse()), True, 'dense tensors under names'),
    (of_all(lambda v: v.to('meta')), True, 'dense tensors under names'),
    (lambda w: dict(enumerate(w.values())), True, 'dense tensors under names'),
    (renamed(lambda k: f'base_model.model.{k}'), False, "begin with 'base_model.model.'"),
    (renamed(lambda k: f'encoder.{k}'), False, "begin with 'encoder.'"),
    (renamed(lambda k: k.removeprefix('vit.')), False, "lack 'vit.'")])
def test_weights_of_second_kinds(place, tmp_path, change, bin, says):
    with pytest.raises(ValueError, match=says): load_model(spoilt(place, tmp_path/'m', change, bin))


@pytest.mark.parametrize('index', [{}, [], None, {'a': 3}, {'a': ''}, {'a': ['x']}])
def test_an_index_of_weights_that_is_none(place, tmp_path, index):
    (tmp_path/'config.json').write_bytes((place/'my_vitmae/config.json').read_bytes())
    (tmp_path/'model.safetensors.index.json').write_text(json.dumps(dict(weight_map=index)))
    with pytest.raises(ValueError, match='is no index of weights'): load_model(tmp_path)


def test_sizes_that_no_machine_holds(place, tmp_path):
    "A configuration of a thousand million layers is refused before any is made"
    c = json.loads((place/'my_vitmae/config.json').read_text())
    for k in ('num_hidden_layers', 'hidden_size'):
        (tmp_path/'config.json').write_text(json.dumps(c | {k: 10**9}))
        with pytest.raises(ValueError, match=f'{k}: found 1000000000'): load_model(tmp_path)
