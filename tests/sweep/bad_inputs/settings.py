"""Fields of a configuration, given on the command line."""

from bad_inputs.row import WHOLE, Row, sweep

IDLE = "has no effect on any member, since"
FOR = "is for the dataset"

VALUES = {
    # Fields that there are not, and values that are no values.
    "gird.beta=1.0": "config has no field 'gird.beta'; did you mean 'grid'?",
    "grid.betas=1.0": "no field 'grid.betas'; did you mean 'beta'? (in config.grid)",
    "data.zzz=3": "no field 'data.zzz'; there are binarise, data_dir, eval_examples, examples",
    "grid.beta.x=1": "no field 'grid.beta.x': config.grid.beta has no fields of its own",
    "blocks.vae.beta=1": "no field 'blocks.vae.beta'; there are mlp, pixelcnn (in config.blocks)",
    "train.epochs=many": "--config.train.epochs=many must be a number",
    "train.batch_size=1.5": "--config.train.batch_size=1.5 must be a whole number",
    "data.binarise=perhaps": "--config.data.binarise=perhaps must be true or false",
    "grid=(1.0,)": "Failed to parse '(1.0,)' as a ConfigDict",
    "grid.beta={1: 2}": "--config.grid.beta={1: 2} must be a value, or a tuple of values",
    # Names.
    "grid.encoder=cnn": "encoder='cnn' does not exist; there are 'dense', 'conv', 'resnet'",
    "grid.decoder=('mlp', 'cnn')": "decoder='cnn' does not exist; there are 'mlp', 'deconv'",
    "grid.prior=vamp": "prior='vamp' does not exist; there are 'normal', 'maf', 'maf_affine'",
    "grid.objective=elbo": "objective='elbo' does not exist; there are 'beta', 'target_rate'",
    "train.optimizer=sgd": "optimizer='sgd' does not exist; there are 'adam', 'normalised_adam'",
    "train.schedule=linear": "schedule='linear' does not exist; there are 'constant', 'cosine'",
    "grid.encoder=(1,)": "encoder=1 does not exist; there are 'dense'",
    "grid.likelihood=poisson": "likelihood='poisson' does not exist; there are 'bernoulli'",
    "grid.likelihood=gaussian": "with decoder='pixelcnn'",
    "only=('mlp',) grid.likelihood=gaussian": "likelihood='gaussian': expected real values, got",
    # Whole numbers.
    "grid.encoder_width=0": f"encoder_width=0 {WHOLE}",
    "grid.decoder_width=(28, 2.5)": f"decoder_width=2.5 {WHOLE}",
    "grid.latent=True": f"latent=True {WHOLE}",
    "base.latent=2147483648": f"latent=2147483648 {WHOLE}",
    "grid.prior=vampprior grid.pseudo_inputs=0": f"pseudo_inputs=0 {WHOLE}",
    "grid.encoder=conv_iaf grid.flow_width=0.5": f"flow_width=0.5 {WHOLE}",
    "grid.seed=-1": "seed=-1 must be a whole number of at least 0 and below 2**31",
    "train.batch_size=0": f"batch_size=0 {WHOLE}",
    "train.batch_size=513": "batch_size=513 is more than the 512 examples of the training data",
    # Other numbers.
    "grid.beta=()": "grid axis beta=() is empty: an empty axis leaves nothing to train",
    "grid.beta=-1.0": "beta=-1.0 must be at least 0 and at most 1e+30",
    "grid.beta=nan": "beta='nan' must be a finite number",
    "grid.beta=1e999": "beta=inf must be a finite number",
    "grid.beta=1e31": "beta=1e+31 must be at least 0 and at most 1e+30",
    "grid.beta=True": "beta=True must be a finite number",
    "grid.beta=(1.0": "beta='(1.0' must be a finite number",
    "grid.beta=((0.5, 1.0),)": "beta=(0.5, 1.0) must be a finite number",
    "grid.kl_warmup_fraction=1.5": "kl_warmup_fraction=1.5 is a part of the training and must",
    "grid.divergence_threshold=0.0": "divergence_threshold=0.0 must be above 0",
    "grid.kl_warmup_fraction=-0.1": "kl_warmup_fraction=-0.1 must be at least 0",
    "train.learning_rate=0": "learning_rate=0.0 must be above 0 and at most 1e+30",
    "train.learning_rate=nan": "learning_rate=nan must be a finite number",
    "train.epochs=0": "epochs=0.0 must be above 0",
    "train.epochs=inf": "epochs=inf must be a finite number",
    # Of as many steps as there are no numbers for.
    "train.epochs=1e12": "epochs=1000000000000.0 are 8e+12 steps and must be below 2**31 of them",
    "grid.objective=target_rate grid.target_rate=-1.0": "target_rate=-1.0 must be at least 0",
    "grid.objective=target_rate grid.target_weight=0.0": "target_weight=0.0 must be above 0",
    "grid.objective=target_distortion grid.target_distortion=-1.0": "target_distortion=-1.0 must",
    "grid.objective=target_distortion grid.multiplier_rate=0.0": "multiplier_rate=0.0 must be",
    "grid.objective=free_bits grid.free_bits=nan": "free_bits='nan' must be a finite number",
    # Values without effect, and grids of nothing.
    "grid.epochs=1.0 train.epochs=2.0": "epochs is given twice, as grid.epochs and as train.ep",
    "grid.target_rate=3.0": f"target_rate=(3.0,) {IDLE} objective is 'beta' everywhere",
    "grid.objective=target_rate grid.beta=1.0": f"beta=(1.0,) {IDLE} objective is 'target_rate'",
    "grid.pseudo_inputs=3": f"pseudo_inputs=(3,) {IDLE} prior is 'normal' everywhere",
    "grid.flow_depth=3": f"flow_depth=(3,) {IDLE} encoder is 'dense' and prior is 'normal'",
    "only=('vae',)": "only='vae' names no block; there are mlp, pixelcnn",
    "only=(['mlp'],)": "only=(['mlp'],) must be a name or a tuple of names",
    "blocks={}": "the grid is empty: the configuration has no blocks",
    "train={'stepz': 3}": "grid axis 'stepz' does not exist; there are encoder, decoder",
    # The population.
    "population.devices=0": f"devices=0 {WHOLE}",
    "population.devices=1000000": "devices=1000000 must be at most 1024",
    "population.chunk_size=0": f"chunk_size=0 {WHOLE}",
    "population.vmap_size=-1": f"vmap_size=-1 {WHOLE}",
    "population.metrics_every=0": f"metrics_every=0 {WHOLE}",
    "population.max_padding_overhead=0.5": "max_padding_overhead=0.5 must be at least 1",
    "population.precision=exact": "precision='exact' does not exist; there are 'default', 'high'",
    "population.compute_dtype=float16": "compute_dtype='float16' does not exist; there are 'fl",
    "population.strategy=sideways": "strategy='sideways' does not exist; there are 'auto', 'vm",
    "population.members=2 population.chunk_size=3": "population.members=2: expected one name",
    "population.dtype=float16": "dtype='float16' does not exist; there are 'float32', 'float64'",
    "population.checkpoint_seconds=-1": "checkpoint_seconds=-1.0 must be at least 0",
    "population={'chunk': 3}": "population.chunk does not exist; there are devices, chunk_size",
    # The data.
    "data.name=cifar": "dataset 'cifar' does not exist; there are 'mnist_static', 'binarized_mni",
    "data.examples=0": "data.examples=0 must be a whole number of at least 1",
    "data.eval_examples=0": "data.eval_examples=0 must be a whole number of at least 1",
    "data.splits=validation": "data.splits='validation' does not exist; 'mnist_static' has tr",
    "data.splits=(3,)": "data.splits=(3,) must be a name or a tuple of names",
    "data.splits=()": "data.splits=() must name one split or several, each once",
    "data.splits=('test', 'test')": "must name one split or several, each once",
    "data={'size': 3}": "data.size does not exist; there are name, splits, examples, eval_examp",
    "data.path=x.npz": f"path='x.npz' {FOR} 'path' or 'omniglot_burda' or 'omniglot_tfds'",
    "data.manual_dir=@": f"manual_dir='@' {FOR} 'binarized_mnist', not for 'mnist_static'",
    "data.data_dir=@": f"data_dir='@' {FOR} 'binarized_mnist' or 'omniglot_tfds', not for",
    "data.binarise=False": f"binarise=False {FOR} 'path' or",
}


def fields(text):
    """Flags of a row of fields: a field begins after a space, unless brackets are open."""
    found = []
    for word in text.split(" "):
        if found and ("=" not in word or found[-1].count("(") > found[-1].count(")")):
            found[-1] += f" {word}"
        else:
            found.append(word)
    return [f"--config.{field}" for field in found]


SETTINGS = [Row(sweep(*fields(text)), sentence) for text, sentence in VALUES.items()]
