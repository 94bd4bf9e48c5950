// Draws a series on a canvas: the measured line, the target, and marks where playback stood.
import type { Series } from './series';

const INK = { line: '#5eead4', fill: 'rgba(94,234,212,0.14)', target: '#7f8db0', stall: '#fb4b5e', text: '#a3b0c8' };

export function drawGraph(canvas: HTMLCanvasElement, series: Series, now_ms: number, target: number | undefined): void {
  const scale = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  if (width === 0 || height === 0) return;
  const wanted = [Math.round(width * scale), Math.round(height * scale)] as const;
  if (canvas.width !== wanted[0]) canvas.width = wanted[0];
  if (canvas.height !== wanted[1]) canvas.height = wanted[1];
  const pen = canvas.getContext('2d');
  if (!pen) return;
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);

  const top = Math.ceil(series.ceiling(Math.max(2, target ?? 0)) * 1.1);
  const x = (at_ms: number): number => width - ((now_ms - at_ms) / series.span_ms) * width;
  const y = (value: number): number => height - 2 - (Math.min(Math.max(value, 0), top) / top) * (height - 8);

  drawStalls(pen, series, x, height);
  drawLine(pen, series, x, y, height);
  if (target !== undefined) {
    pen.strokeStyle = INK.target;
    pen.lineWidth = 1;
    pen.setLineDash([4, 4]);
    pen.beginPath();
    pen.moveTo(0, y(target));
    pen.lineTo(width, y(target));
    pen.stroke();
    pen.setLineDash([]);
  }
  pen.fillStyle = INK.text;
  pen.font = '11px system-ui, sans-serif';
  pen.textBaseline = 'top';
  pen.fillText(`${top} s`, 2, 2);
}

type Scale = (value: number) => number;

function drawStalls(pen: CanvasRenderingContext2D, series: Series, x: Scale, height: number): void {
  pen.fillStyle = INK.stall;
  for (const point of series.list()) {
    if (point.stalled) pen.fillRect(x(point.at_ms) - 1, height - 5, 2, 5);
  }
}

function drawLine(pen: CanvasRenderingContext2D, series: Series, x: Scale, y: Scale, height: number): void {
  pen.lineWidth = 2;
  pen.lineJoin = 'round';
  pen.strokeStyle = INK.line;
  pen.fillStyle = INK.fill;
  let run: [number, number][] = [];
  const flush = (): void => {
    const first = run[0];
    const last = run[run.length - 1];
    if (first && last && run.length > 1) {
      pen.beginPath();
      for (const [px, py] of run) pen.lineTo(px, py);
      pen.stroke();
      pen.lineTo(last[0], height);
      pen.lineTo(first[0], height);
      pen.fill();
    }
    run = [];
  };
  for (const point of series.list()) {
    if (point.value === undefined) flush();
    else run.push([x(point.at_ms), y(point.value)]);
  }
  flush();
}
