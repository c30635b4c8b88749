// The page's own script: the tabs, and what GraphiQL is given.
const root = document.getElementById("graphiql");
// What says who is calling, by default.
const viewer = JSON.parse(root.dataset.headers);
// "<in 2 h>" in variables stands for that instant.
const inTime = (text) =>
  text?.replace(/<in (\d+) h>/g, (_, hours) => new Date(Date.now() + hours * 3_600_000).toISOString());
const tab = (query, variables) => ({
  query: query.trim() + "\n",
  variables: inTime(variables && JSON.stringify(variables, null, 2)),
  headers: JSON.stringify(viewer, null, 2),
});

const defaultTabs = [
  tab(`
# What is in front right now, joined with
# the catalogue and with what you like.
# The headers below say who you are.
# More places: after: "…", or fromRank: 11.
query Ranking {
  ranking(first: 10) {
    totalCount
    period {
      key
      endsAt
      freshness { source asOf degraded }
    }
    nodes {
      rank
      score
      product {
        id
        name
        price { amount currency }
        like { count viewerHasLiked }
      }
    }
    pageInfo { hasNextPage endCursor }
  }
}`),
  tab(`
# Likes a product, or takes the like back.
# COMMITTED: it is in the SQL ledger.
# With an idempotencyKey, sending it again
# gives the same answer, changes nothing.
# No such product yet? Run Stock in the
# next tab but one first.
mutation Like($product: ID!) {
  toggleLike(input: { productId: $product }) {
    liked
    likeCount
    changed
    durability
    product { name currentRank }
    userErrors { code message path }
  }
}`, { "product": "85123A" }),
  tab(`
# Keep this one running, and send what the
# other tabs hold from a second window:
# the board moves.
subscription LiveBoard {
  boardChanges(top: 10) {
    __typename
    seq
    at
    ... on BoardSnapshot {
      reason
      totalCount
      entries {
        rank
        score
        productId
        product { name }
      }
    }
    ... on BoardDelta {
      fromSeq
      changes {
        kind
        productId
        fromRank
        toRank
        score
        product { name }
      }
    }
  }
}`),
  tab(`
# What a shop's back end sends: what it has
# in stock, then what happens. The same id
# is counted once, however often it comes.
mutation Stock {
  upsertProducts(input: { products: [{
    id: "85123A"
    name: "White Hanging Heart T-Light Holder"
    price: "2.95"
    currency: "GBP"
  }] }) { upserted userErrors { code message path } }
}

mutation RecordEvents($events: [EventInput!]!) {
  recordEvents(input: { events: $events }) {
    recorded
    duplicates
    rejected
    durability
    results {
      eventId
      status
      error { code message path }
    }
  }
}`, {
    "events": [
      { "id": "try-1", "signal": "VIEW", "productId": "85123A", "count": 25 },
      { "id": "try-2", "signal": "CART", "productId": "85123A", "count": 4 },
      { "id": "try-3", "signal": "ORDER", "productId": "85123A", "userId": "ann" }
    ]
  }),
  tab(`
# What every score is made of: the lines
# add up to it exactly, what was carried
# over and admins' rules included.
query Explain {
  ranking(first: 5) {
    nodes {
      rank
      score
      product { name }
      movement { direction previousRank places }
      explanation {
        total
        lines { source signal count weight points note }
      }
    }
  }
}`),
  tab(`
# Every board as it would look if orders
# counted for more: how much of its top
# stays, and each move on one of them.
# Changes nothing.
# Roles, here and in the tabs that follow:
# ADMIN.
query Preview($input: AdjustWeightsInput!) {
  admin {
    weightPreview(input: $input, movesOf: "daily", top: 10) {
      boards {
        board { id }
        topOverlap
        kendallTau
      }
      moves {
        rankBefore
        rankAfter
        scoreBefore
        scoreAfter
        product { name }
      }
    }
  }
}`, { "input": { "weights": [{ "signal": "ORDER", "weight": 2.5 }], "note": "Orders first" } }),
  tab(`
# Orders count for more from the start of
# the open day on; the live board shows it
# at once. With expectedVersion, it is
# refused when somebody was faster.
mutation ChangeWeight($input: AdjustWeightsInput!) {
  adjustWeights(input: $input) {
    version
    rule {
      createdBy
      createdAt
      note
      weights { signal weight }
    }
    userErrors { code message path }
  }
}`, { "input": { "weights": [{ "signal": "ORDER", "weight": 2.5 }], "note": "Orders first" } }),
  tab(`
# Takes a rule back, as if it had never
# been made. Which one? Rules lists them.
mutation Revert($input: CancelWeightsInput!) {
  cancelWeights(input: $input) {
    version
    rule { id note cancelled }
    userErrors { code message path }
  }
}

query Rules {
  admin {
    weightRules(first: 10) {
      nodes {
        id
        board
        from
        until
        hours
        weights { signal weight }
        createdBy
        note
        cancelled
      }
    }
  }
}`, { "input": { "id": "1", "note": "Back to what it was" } }),
  tab(`
# A season that begins and ends by itself,
# and counts in the evening only. Times of
# the day are those of the board's zone;
# what is scheduled stands below weights.
mutation Campaign($input: AdjustWeightsInput!) {
  adjustWeights(input: $input) {
    version
    rule {
      id
      from
      until
      hours
      weights { signal weight }
    }
    userErrors { code message path }
  }
}

query Schedule {
  board {
    weights {
      id
      from
      until
      hours
      note
      weights { signal weight }
    }
  }
}`, {
    "input": {
      "board": "daily",
      "weights": [{ "signal": "SHARE", "weight": 1.5 }],
      "from": "<in 2 h>",
      "until": "<in 74 h>",
      "hours": [18, 19, 20, 21, 22, 23],
      "note": "Three evenings of sharing"
    }
  }),
  tab(`
# How the server and what it stands on are
# doing, and what admins have done last.
query System {
  admin {
    system {
      engine { kind up epoch usedBytes }
      ledger { kind up }
      pending
      oldestPendingMs
      projectionLagMs
      deadLetters
      subscriptions
    }
    auditLog(first: 10) {
      nodes { at actor action target before after note }
    }
    deadLetters(first: 5) {
      nodes { id position entry error at }
    }
  }
}`),
];

// What GraphiQL keeps in the browser for the next time. Headers hold tokens, and whatever runs on this origin could read
// them there for ever: they are left out, of its history too.
const stripped = (value) => {
  try {
    return JSON.stringify(JSON.parse(value, (name, inner) => (name === "headers" ? undefined : inner)));
  } catch {
    return value;
  }
};
const withoutHeaders = {
  get length() {
    return localStorage.length;
  },
  clear: () => localStorage.clear(),
  getItem: (name) => localStorage.getItem(name),
  removeItem: (name) => localStorage.removeItem(name),
  setItem: (name, value) => {
    if (!name.endsWith(":headers")) localStorage.setItem(name, stripped(value));
  },
};
for (const name of Object.keys(localStorage)) {
  if (name.endsWith(":headers")) localStorage.removeItem(name);
  else withoutHeaders.setItem(name, localStorage.getItem(name));
}

if (window.GraphiQL) {
  const socket = new URL("/graphql/ws", location.href);
  socket.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  // Headers of a tab also go into the socket's connection_init.
  const fetcher = GraphiQL.createFetcher({ url: "/graphql", subscriptionUrl: socket.href });
  ReactDOM.createRoot(root).render(
    React.createElement(GraphiQL, {
      fetcher,
      defaultTabs,
      defaultHeaders: JSON.stringify(viewer, null, 2),
      defaultEditorToolsVisibility: "variables",
      shouldPersistHeaders: false,
      storage: withoutHeaders,
    }),
  );
} else {
  root.firstElementChild.textContent =
    "GraphiQL could not be loaded from its CDN. Without internet, start the server with --graphiql-assets DIR, " +
    "a folder that scripts/graphiql-assets DIR has filled.";
}

