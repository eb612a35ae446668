// A real OpenID provider (oidc-provider, certified) for tests, on the loopback interface: logs everybody in who names
// himself in the query or the form, by the settings of one JSON file.
//
//   node provider.mjs SETTINGS.json
//
// Settings: port, keys (private JWKs, the first one signs), accounts (name -> claims), clients, jobs (client -> claims
// of its jobs), idTokenSeconds. On SIGHUP the file is read again and new keys are served.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const file = process.argv[2];
const settings = () => JSON.parse(readFileSync(file, 'utf8'));
const { port } = settings();
const issuer = `http://127.0.0.1:${port}`;

function configured() {
  const { keys, accounts, clients, jobs, idTokenSeconds } = settings();
  return {
    clients,
    jwks: { keys },
    cookies: { keys: ['of the tests'] },
    pkce: { required: () => true },
    conformIdTokenClaims: false,
    claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name', 'groups'] },
    scopes: ['openid', 'offline_access', 'email', 'profile'],
    ttl: { IdToken: idTokenSeconds ?? 3600, AccessToken: 600, ClientCredentials: 600, DeviceCode: 120 },
    rotateRefreshToken: true,
    issueRefreshToken: async () => true,
    findAccount: async (ctx, id) => (accounts[id] ? { accountId: id, claims: async () => ({ sub: id, ...accounts[id] }) } : undefined),
    interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
    features: {
      devInteractions: { enabled: false },
      revocation: { enabled: true },
      deviceFlow: {
        enabled: true,
        userCodeInputSource: async (ctx, form) => { ctx.type = 'html'; ctx.body = form; },
        userCodeConfirmSource: async (ctx, form) => { ctx.type = 'html'; ctx.body = form; },
        successSource: async (ctx) => { ctx.body = 'done'; },
      },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        useGrantedResource: async () => false,
        defaultResource: (ctx, client) => (jobs[client?.clientId] ? 'urn:lockgate:tests' : undefined),
        getResourceServerInfo: (ctx, resource, client) => ({
          scope: '',
          audience: jobs[client.clientId].audience,
          accessTokenFormat: 'jwt',
          accessTokenTTL: 600,
          jwt: { sign: { alg: 'RS256' } },
        }),
      },
    },
    extraTokenClaims: async (ctx, token) => (jobs[token.clientId] ?? {}).claims,
    formats: {
      customizers: {
        // As the identity tokens of CI systems are: of type JWT, about the job.
        jwt: async (ctx, token, jwt) => { jwt.header = { ...jwt.header, typ: 'JWT' }; },
      },
    },
  };
}

// Everybody is who the cookie `account` says; nobody is asked for consent.
async function interact(provider, request, response) {
  const details = await provider.interactionDetails(request, response);
  const { prompt: { name }, params, session } = details;
  if (name === 'login') {
    const account = /(?:^|; )account=([^;]+)/.exec(request.headers.cookie ?? '')?.[1] ?? 'ann';
    return provider.interactionFinished(request, response, { login: { accountId: account } }, { mergeWithLastSubmission: false });
  }
  const grant = new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  grant.addOIDCScope('openid email profile offline_access');
  return provider.interactionFinished(request, response, { consent: { grantId: await grant.save() } }, { mergeWithLastSubmission: true });
}

function made() {
  const provider = new Provider(issuer, configured());
  provider.use(async (ctx, next) => {
    await next();
    if (ctx.path === '/device/auth' && ctx.status === 200) ctx.body = { ...ctx.body, interval: 1 };
  });
  return { provider, answer: provider.callback() };
}

let current = made();
process.on('SIGHUP', () => { current = made(); });
const server = createServer((request, response) => {
  if (request.url.startsWith('/interaction/')) {
    interact(current.provider, request, response).catch((error) => {
      response.writeHead(500).end(String(error));
    });
    return;
  }
  current.answer(request, response);
});
server.listen(port, '127.0.0.1');
process.on('SIGTERM', () => { server.close(); server.closeAllConnections(); });
