// The words of the page, in each language.

const WORDS = {
  en: {
    skip: "Skip to the content", sections: "Sections", models: "Models", traffic: "Traffic", playground: "Playground", use: "Use it",
    api: "API", key: "Key", language: "Language", model: "Model", state: "State", gives: "Gives", runs: "Runs on", longest: "Longest input",
    speed: "Tokens/s", waiting: "Waiting", trafficHint: "The last five minutes, while this page is open. One point is two seconds.",
    task: "Task", prompt: "Kind of text", query: "Query", run: "Run", program: "Program", copy: "Copy", copied: "Copied",
    keyTitle: "This server asks for a key", keyHint: "It stays in this tab, and goes to this server alone.", useKey: "Use this key",
    cancel: "Cancel", keyWrong: "The server does not know this key.",
    connected: "connected", lost: "no answer from the server", needsKey: "a key is needed", loadingAll: "loading its models", draining: "shutting down", loadedHint: "loads at the first request",
    ready: "ready", on_demand: "on demand", loading: "loading", fetching: "fetching", failed: "failed", down: "down",
    tokens: "tokens", numbers: "numbers", scores: "scores of pairs", sparseAlone: "sparse weights",
    requests: "Requests/s", latency: "Time of requests", tokensPerSecond: "Tokens/s", queue: "Inputs in the queue", batch: "Sequences in a batch",
    hits: "Inputs from the cache", errors: "Errors/s", plugins: "Time of plugins", memory: "Memory", backlog: "Time until all is done", wait: "Time in the queue",
    answered: "answered", queries: "queries", bulk: "bulk", mean: "mean", resident: "resident", cache: "cache", none: "none",
    similarity: "Similarity of texts", sparse: "Sparse weights", match: "ColBERT match of two texts", rerank: "Rerank documents",
    tokenize: "Tokens of a text", oneALine: "Texts, one a line", documentsALine: "Documents, one a line", twoTexts: "Two texts, one a line",
    oneText: "A text", kindNone: "not said", kindQuery: "query", kindDocument: "document",
    took: "{ms} ms", inTokens: "{n} tokens", cutNote: "cut: {what}", fromCache: "{hits} of {all} from the cache",
    tokenizeStep: "to tokens", queueStep: "in the queue", computeStep: "in the batch",
    text: "Text", document: "Document", score: "Score", nothing: "There is no text.", needTwo: "Two texts are needed.",
    noModel: "No model here gives that.", tooMany: "There are {n} texts, at most {most} can be tried here.", others: "others", similarityOf: "Cosine similarity of each text with each", weightOf: "Weight of each token",
    matchOf: "For each token of the first text the token of the second that is nearest",
    inputLabel: "A text to embed", yourKey: "YOUR-KEY",
  },
  zh: {
    skip: "跳到正文", sections: "页面导航", models: "模型", traffic: "运行状况", playground: "试一试", use: "接入代码",
    api: "接口文档", key: "密钥", language: "语言", model: "模型", state: "状态", gives: "输出", runs: "后端与设备", longest: "最长输入",
    speed: "Token/秒", waiting: "排队", trafficHint: "页面打开期间最近五分钟的数据，每两秒一个点。",
    task: "功能", prompt: "文本类型", query: "查询", run: "运行", program: "语言或工具", copy: "复制", copied: "已复制",
    keyTitle: "此服务需要密钥", keyHint: "密钥只保存在当前标签页，只发送给此服务。", useKey: "使用此密钥",
    cancel: "取消", keyWrong: "密钥无效。",
    connected: "已连接", lost: "服务没有响应", needsKey: "需要密钥", loadingAll: "正在加载模型", draining: "正在停止", loadedHint: "首次请求时加载",
    ready: "就绪", on_demand: "按需加载", loading: "加载中", fetching: "下载中", failed: "加载失败", down: "不可用",
    tokens: "个 token", numbers: "维", scores: "文本对评分", sparseAlone: "稀疏权重",
    requests: "请求/秒", latency: "请求耗时", tokensPerSecond: "Token/秒", queue: "排队输入数", batch: "每批序列数",
    hits: "缓存命中率", errors: "错误/秒", plugins: "插件耗时", memory: "内存", backlog: "预计处理完的时间", wait: "排队耗时",
    answered: "已应答", queries: "查询", bulk: "批量", mean: "平均", resident: "常驻内存", cache: "缓存", none: "无",
    similarity: "文本相似度", sparse: "稀疏权重", match: "两段文本的 ColBERT 匹配", rerank: "文档重排序",
    tokenize: "查看分词", oneALine: "文本，每行一条", documentsALine: "文档，每行一条", twoTexts: "两段文本，每行一段",
    oneText: "一段文本", kindNone: "不指定", kindQuery: "查询", kindDocument: "文档",
    took: "{ms} 毫秒", inTokens: "{n} 个 token", cutNote: "已截断：{what}", fromCache: "{all} 条中 {hits} 条来自缓存",
    tokenizeStep: "分词", queueStep: "排队", computeStep: "计算",
    text: "文本", document: "文档", score: "得分", nothing: "请先输入文本。", needTwo: "需要两段文本。",
    noModel: "这里没有模型支持此功能。", tooMany: "共有 {n} 条文本，这里最多可试 {most} 条。", others: "其他", similarityOf: "各文本之间的余弦相似度", weightOf: "每个 token 的权重",
    matchOf: "第一段文本的每个 token 在第二段文本中最相近的 token",
    inputLabel: "要向量化的文本", yourKey: "YOUR-KEY",
  },
};

const store = "embedgate-language";
let language = "en";

/** The text of a word, with `{name}` replaced by the value of that name. */
export function word(name, values = {}) {
  const words = WORDS[language];
  const text = Object.hasOwn(words, name) ? words[name] : name;
  return text.replace(/\{(\w+)\}/g, (mark, key) => (Object.hasOwn(values, key) ? values[key] : mark));
}

/** The language of the page: the one that was chosen in this browser, else the browser's own. */
export function chooseLanguage(chosen) {
  const known = (name) => Object.hasOwn(WORDS, name);
  let kept = null;
  try {
    if (chosen) localStorage.setItem(store, chosen);
    kept = localStorage.getItem(store);
  } catch { /* a browser that keeps nothing */ }
  const own = navigator.languages.map((name) => name.slice(0, 2)).find(known);
  language = [chosen, kept, own, "en"].find((name) => name && known(name));
  document.documentElement.lang = language === "zh" ? "zh-CN" : language;
  for (const element of document.querySelectorAll("[data-t]")) element.textContent = word(element.dataset.t);
  for (const element of document.querySelectorAll("[data-t-label]")) element.setAttribute("aria-label", word(element.dataset.tLabel));
  return language;
}

/** A number as people read it: three digits at most behind the point, thousands apart. */
export function number(value, digits = 2) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  const shown = size >= 100 ? 0 : size >= 10 ? Math.min(1, digits) : digits;
  return value.toLocaleString(document.documentElement.lang, { maximumFractionDigits: shown });
}
