// A box around the mouth of a drawn face, by mouse or touch, in the picture #mark. Gradio is told by the hidden text
// field #marked: left, top, width and height in parts of the picture.
(() => {
  let start = null, box = null
  const inPicture = (picture, event) => {
    const {left, top, width, height} = picture.getBoundingClientRect()
    const within = (value) => Math.min(Math.max(value, 0), 1)
    return [within((event.clientX - left) / width), within((event.clientY - top) / height)]
  }
  const area = ([x0, y0], [x1, y1]) => [Math.min(x0, x1), Math.min(y0, y1), Math.abs(x1 - x0), Math.abs(y1 - y0)]
  const show = (picture, [x, y, width, height]) => {
    if (!box?.isConnected) {
      box = document.createElement('div')
      box.className = 'marked-box'
      picture.parentElement.append(box)
    }
    const inside = picture.getBoundingClientRect(), around = box.offsetParent.getBoundingClientRect()
    box.style.left = `${inside.left - around.left + x * inside.width}px`
    box.style.top = `${inside.top - around.top + y * inside.height}px`
    box.style.width = `${width * inside.width}px`
    box.style.height = `${height * inside.height}px`
  }
  document.addEventListener('pointerdown', (event) => {
    const picture = event.target.closest?.('#mark img')
    if (!picture) return
    event.preventDefault()
    start = {picture, point: inPicture(picture, event)}
  })
  document.addEventListener('pointermove', (event) => {
    if (start) show(start.picture, area(start.point, inPicture(start.picture, event)))
  })
  document.addEventListener('pointerup', (event) => {
    if (!start) return
    const {picture, point} = start, found = area(point, inPicture(picture, event))
    start = null
    const field = document.querySelector('#marked textarea, #marked input')
    if (!field || found[2] * picture.clientWidth < 4 || found[3] * picture.clientHeight < 4) return
    show(picture, found)
    field.value = found.map((value) => value.toFixed(4)).join(',')
    field.dispatchEvent(new Event('input', {bubbles: true}))
  })
  document.addEventListener('pointercancel', () => { start = null })
  document.addEventListener('dragstart', (event) => { if (event.target.closest?.('#mark')) event.preventDefault() })
})()
