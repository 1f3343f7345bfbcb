"""Fields of a configuration, given on the command line."""

from bad_inputs.row import WHOLE, Row, sweep

IDLE = "expected no value, got one without effect, since"
FOR = "expected data.name to be"

VALUES = {
    # Fields that there are not, and values that are no values.
    "gird.beta=1.0": "expected a field of config, got 'gird'. Did you mean 'grid'?",
    "grid.betas=1.0": "expected a field of config.grid, got 'betas'. Did you mean 'beta'?",
    "data.zzz=3": "expected a field of config.data, got 'zzz'. There are binarise, data_dir",
    "grid.beta.x=1": "a field that there is, got 'x'. config.grid.beta has none.",
    "blocks.vae.beta=1": "a field of config.blocks, got 'vae'. There are mlp, pixelcnn.",
    "train.epochs=many": "--config.train.epochs=many: expected a number",
    "train.batch_size=1.5": "--config.train.batch_size=1.5: expected a whole number",
    "data.binarise=perhaps": "--config.data.binarise=perhaps: expected true or false",
    "grid.beta=0,5": "beta=0,5: expected a decimal point or brackets, such as 0.5 or (0, 5)",
    "data.splits=test data.splits=train": "expected each field once, got --config.data.splits=test",
    "grid['beta']=0,5": "--config.grid.beta=0,5: expected a decimal point or brackets",
    "blocks.mlp.beta=0.3 grid.beta=1": "this or --config.grid.beta, which replaces it, got both",
    "blocks.mlp.epochs=0.3 train.epochs=1": "this or --config.train.epochs, which replaces it, got",
    "only=('mlp',) blocks.pixelcnn.beta=1": "a block that is trained (mlp), got pixelcnn",
    "data.splits=test data.eval_examples=9": "to report on the split train, got data.splits=",
    "grid=(1.0,)": "Failed to parse '(1.0,)' as a ConfigDict",
    "grid.beta={1: 2}": "--config.grid.beta={1: 2}: expected a value, or a tuple of values",
    # Names.
    "grid.encoder=cnn": "encoder='cnn': expected one of 'dense', 'conv', 'resnet'",
    "grid.decoder=('mlp', 'cnn')": "decoder='cnn': expected one of 'mlp', 'deconv'",
    "grid.prior=vamp": "prior='vamp': expected one of 'normal', 'maf', 'maf_affine'",
    "grid.objective=elbo": "objective='elbo': expected one of 'beta', 'target_rate'",
    "train.optimizer=sgd": "optimizer='sgd': expected one of 'adam', 'normalised_adam'",
    "train.schedule=linear": "schedule='linear': expected one of 'constant', 'cosine'",
    "grid.encoder=(1,)": "encoder=1: expected one of 'dense'",
    "grid.likelihood=poisson": "likelihood='poisson': expected one of 'bernoulli'",
    "grid.likelihood=gaussian": "with decoder='pixelcnn'",
    "only=('mlp',) grid.likelihood=gaussian": "likelihood='gaussian': expected real values, got",
    # Whole numbers.
    "grid.encoder_width=0": f"encoder_width=0{WHOLE}",
    "grid.decoder_width=(28, 2.5)": f"decoder_width=2.5{WHOLE}",
    "grid.latent=True": f"latent=True{WHOLE}",
    "base.latent=2147483648": f"latent=2147483648{WHOLE}",
    "grid.prior=vampprior grid.pseudo_inputs=0": f"pseudo_inputs=0{WHOLE}",
    "grid.encoder=conv_iaf grid.flow_width=0.5": f"flow_width=0.5{WHOLE}",
    "grid.seed=-1": "seed=-1: expected a whole number of at least 0 and below 2**31",
    "train.batch_size=0": f"batch_size=0{WHOLE}",
    "train.batch_size=513": "batch_size=513: expected at most 512, the examples of the training",
    # Other numbers.
    "grid.beta=()": "beta=(): expected at least one value, got none.",
    "grid.beta=-1.0": "beta=-1.0: expected at least 0 and at most 1e+30",
    "grid.beta=nan": "beta='nan': expected a finite number",
    "grid.beta=1e999": "beta=inf: expected a finite number",
    "grid.beta=1e31": "beta=1e+31: expected at least 0 and at most 1e+30",
    "grid.beta=True": "beta=True: expected a finite number",
    "grid.beta=(1.0": "beta='(1.0': expected a finite number",
    "grid.beta=((0.5, 1.0),)": "beta=(0.5, 1.0): expected a finite number",
    "grid.kl_warmup_fraction=1.5": "kl_warmup_fraction=1.5: expected at most 1, a part",
    "grid.divergence_threshold=0.0": "divergence_threshold=0.0: expected above 0",
    "grid.kl_warmup_fraction=-0.1": "kl_warmup_fraction=-0.1: expected at least 0",
    "train.learning_rate=0": "learning_rate=0.0: expected above 0 and at most 1e+30",
    "train.learning_rate=nan": "learning_rate=nan: expected a finite number",
    "train.epochs=0": "epochs=0.0: expected above 0",
    "train.epochs=inf": "epochs=inf: expected a finite number",
    # Of as many steps as there are no numbers for.
    "train.epochs=1e12": "epochs=1000000000000.0: expected fewer than 2**31 steps, got 8e+12.",
    "grid.objective=target_rate grid.target_rate=-1.0": "target_rate=-1.0: expected at least 0",
    "grid.objective=target_rate grid.target_weight=0.0": "target_weight=0.0: expected above 0",
    "grid.objective=target_distortion grid.target_distortion=-1.0": "target_distortion=-1.0: exp",
    "grid.objective=target_distortion grid.multiplier_rate=0.0": "multiplier_rate=0.0: expected",
    "grid.objective=free_bits grid.free_bits=nan": "free_bits='nan': expected a finite number",
    # Values without effect, and grids of nothing.
    "grid.epochs=1.0 train.epochs=2.0": "epochs: expected grid.epochs or train.epochs, got both.",
    "grid.target_rate=3.0": f"target_rate=(3.0,): {IDLE} objective is 'beta' everywhere",
    "grid.objective=target_rate grid.beta=1.0": f"beta=(1.0,): {IDLE} objective is 'target_rate'",
    "grid.pseudo_inputs=3": f"pseudo_inputs=(3,): {IDLE} prior is 'normal' everywhere",
    "grid.flow_depth=3": f"flow_depth=(3,): {IDLE} encoder is 'dense' and prior is 'normal'",
    "only=('vae',)": "only='vae': expected one of mlp, pixelcnn.",
    "only=(['mlp'],)": "only=(['mlp'],): expected a name or a tuple of names.",
    "blocks={}": "blocks={}: expected at least one block, got none.",
    "train={'stepz': 3}": "axis 'stepz': expected one of encoder, decoder",
    # The population.
    "population.devices=0": f"devices=0{WHOLE}",
    "population.devices=1000000": "devices=1000000: expected at most 1024",
    "population.chunk_size=0": f"chunk_size=0{WHOLE}",
    "population.vmap_size=-1": f"vmap_size=-1{WHOLE}",
    "population.metrics_every=0": f"metrics_every=0{WHOLE}",
    "population.max_padding_overhead=0.5": "max_padding_overhead=0.5: expected at least 1",
    "population.precision=exact": "precision='exact': expected one of 'default', 'high'",
    "population.compute_dtype=float16": "compute_dtype='float16': expected one of 'fl",
    "population.strategy=sideways": "strategy='sideways': expected one of 'auto', 'vm",
    "population.members=2 population.chunk_size=3": "population.members=2: expected one name",
    "population.dtype=float16": "dtype='float16': expected one of 'float32', 'float64'",
    "population.checkpoint_seconds=-1": "checkpoint_seconds=-1.0: expected at least 0",
    "population={'chunk': 3}": "population.chunk: expected one of devices, chunk_size",
    # The data.
    "data.name=cifar": "data.name='cifar': expected one of 'mnist_static', 'binarized_mni",
    "data.examples=0": "data.examples=0: expected a whole number of at least 1",
    "data.eval_examples=0": "data.eval_examples=0: expected a whole number of at least 1",
    "data.splits=validation": "data.splits='validation': expected one of train, valid, test",
    "data.splits=(3,)": "data.splits=(3,): expected a name or a tuple of names.",
    "data.splits=()": "data.splits=(): expected one split or several, each once.",
    "data.splits=('test', 'test')": "expected one split or several, each once.",
    "data={'size': 3}": "data.size: expected one of name, splits, examples, eval_exampl",
    "data.path=x.npz": f"path='x.npz': {FOR} path or omniglot_burda or omniglot_tfds",
    "data.manual_dir=@": f"manual_dir='@': {FOR} binarized_mnist, got 'mnist_static'",
    "data.data_dir=@": f"data_dir='@': {FOR} binarized_mnist or omniglot_tfds or any",
    "data.binarise=False": f"binarise=False: {FOR} path or",
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
