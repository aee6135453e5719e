// Runs before Gradio. One language for every word: Gradio would take the browser's for its own words, though the page
// has only two, and some of its words are in English whatever the browser says.
(() => {
  const {exact, patterns} = WORDS
  const chinese = (navigator.language || '').toLowerCase().startsWith('zh')
  Object.defineProperty(navigator, 'language', {get: () => (chinese ? 'zh-CN' : 'en'), configurable: true})
  document.documentElement.lang = chinese ? 'zh-CN' : 'en'

  // A login that has ended is asked for again instead of leaving buttons that do nothing.
  const fetched = window.fetch
  window.fetch = async (...asked) => {
    const answer = await fetched(...asked)
    if (answer.status === 401) location.assign('login')
    return answer
  }
  if (!chinese) return

  const compiled = patterns.map(([pattern, words]) => [new RegExp(`^${pattern}$`), words])
  const attributes = ['aria-label', 'title', 'placeholder', 'alt', 'label']
  const said = (text) => {
    const plain = text.trim()
    if (!/[A-Za-z]/.test(plain)) return null
    if (Object.hasOwn(exact, plain)) return text.replace(plain, () => exact[plain])
    const found = compiled.find(([pattern]) => pattern.test(plain))
    return found ? text.replace(plain, () => plain.replace(...found)) : null
  }
  const putText = (node) => {
    if (node.parentElement?.closest('script, style, textarea')) return
    const words = said(node.data)
    if (words !== null && words !== node.data) node.data = words
  }
  const putAttributes = (element) => {
    for (const name of attributes) {
      const words = element.hasAttribute(name) ? said(element.getAttribute(name)) : null
      if (words !== null) element.setAttribute(name, words)
    }
  }
  const put = (node) => {
    if (node.nodeType === Node.TEXT_NODE) return putText(node)
    if (node.nodeType !== Node.ELEMENT_NODE) return
    putAttributes(node)
    node.childNodes.forEach(put)
  }
  const options = {subtree: true, childList: true, characterData: true, attributes: true, attributeFilter: attributes}
  new MutationObserver((changes) => {
    for (const {type, target, addedNodes} of changes) {
      if (type === 'characterData') putText(target)
      else if (type === 'attributes') putAttributes(target)
      else addedNodes.forEach(put)
    }
  }).observe(document.documentElement, options)
})()
