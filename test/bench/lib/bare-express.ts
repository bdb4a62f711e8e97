import express from 'express';

/** One route that reads a JSON body and answers one. In a process of its own, as the broker is. Ends with its parent. */
const app = express();
app.post('/', express.json(), (request, response) => {
  response.json({ decision: request.body !== undefined });
});
const server = app.listen(0, '127.0.0.1', () => {
  const address = server.address();
  console.log(typeof address === 'object' ? address?.port : '');
});
process.stdin.on('end', () => process.exit(0)).resume();
