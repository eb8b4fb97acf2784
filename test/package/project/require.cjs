// require() gives the one instance that import gives.
const { backendInfo, Tensor } = require('node-sdpa');

import('node-sdpa').then((imported) => {
  if (imported.Tensor !== Tensor) throw new Error('two instances');
  console.log(backendInfo().backend);
});
